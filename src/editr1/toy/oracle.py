"""The oracle: how well an edit was done, by the target that RL never sees. For measurement only.

score = done * preserved, each in [0, 1]
done       mean over the parts that must change: how much of the way from source to target the edit goes there
preserved  least over the parts that must stay: how well they match the source
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL.Image import Image

from editr1.toy.scene import SIZE, alpha, draw, to_array
from editr1.toy.world import VISIBLE, ToyItem

NEAR, FAR = 0.06, 0.30  # RGB distance (root mean square of the channels) that counts as equal, as unlike


@dataclass(frozen=True)
class OracleScore:
    """`score` = `done` * `preserved`, all in [0, 1]."""

    score: float
    done: float
    preserved: float


def match(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How alike two pictures [64, 64, 3] are, pixel by pixel: [64, 64], 1 where equal, 0 where unlike."""
    distance = np.sqrt(((a - b) ** 2).mean(-1))
    return np.clip((FAR - distance) / (FAR - NEAR), 0, 1)


@lru_cache(maxsize=4096)
def _regions(item: ToyItem) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Masks [64, 64] of what must change (by part) and of what must stay."""
    source, target = item.scene, item.edit.target
    covered = np.zeros((SIZE, SIZE), bool)
    things: dict[str, np.ndarray] = {}
    for thing in (*source.things, *target.things):
        mask = alpha(thing) > 0.5
        things[str(thing.cell)] = things.get(str(thing.cell), np.zeros_like(mask)) | mask
        covered |= alpha(thing) > 0
    regions = things | {"background": ~covered}
    if item.edit.parts == ("all",):
        return {"all": np.ones_like(covered)}, {}
    change = {part: regions[part] for part in item.edit.parts}
    return change, {part: mask for part, mask in regions.items() if part not in change and mask.any()}


def score(item: ToyItem, edit: Image) -> OracleScore:
    """How well `edit` (any size; resized to 64x64) does what the item asks."""
    picture = to_array(edit if edit.size == (SIZE, SIZE) else edit.resize((SIZE, SIZE)))
    source, target = draw(item.scene), draw(item.edit.target)
    change, stay = _regions(item)
    differs = np.sqrt(((source - target) ** 2).mean(-1)) > VISIBLE
    unmoved, reached = match(source, target), match(picture, target)
    done = []
    for mask in change.values():
        where = mask & differs
        if where.any():
            before = unmoved[where].mean()
            done.append(float(np.clip((reached[where].mean() - before) / (1 - before), 0, 1)))
    likeness = [float(reached[mask].mean()) for mask in stay.values()]
    if "all" in change:
        likeness = [_likeness(picture, target)]
    preserved = min(likeness, default=1.0)
    return OracleScore(float(np.mean(done)) * preserved, float(np.mean(done)), preserved)


def _likeness(picture: np.ndarray, target: np.ndarray) -> float:
    """Correlation of the two grey pictures, in [0, 1]: whether a restyled picture still shows the same things."""
    a, b = picture.mean(-1) - picture.mean(), target.mean(-1) - target.mean()
    return float(np.clip((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum() + 1e-12), 0, 1))
