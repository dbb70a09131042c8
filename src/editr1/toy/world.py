"""The toy world's items: generated from a seed, never stored, in three splits that share no scene.

A hash of what a scene shows (names, cells, background) decides its split, so no scene is in two splits, whatever the
seed.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from PIL import Image

from editr1.config.data import Level, Split
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.toy.scene import (
    BACKGROUNDS,
    PATTERNS,
    SIDES,
    SIZE,
    Scene,
    Thing,
    alpha,
    artwork,
    colours_for,
    draw,
    to_image,
)
from editr1.toy.tasks import MAKERS, TASKS, Edit, Rng, pick

SPLITS: tuple[Split, ...] = get_args(Split)
LEVELS: tuple[Level, ...] = get_args(Level)
VISIBLE = 0.08  # distance (root mean square of the channels) from which on two colours differ clearly


@dataclass(frozen=True)
class ToyItem:
    """One item with the edit's target, which RL must not see."""

    key: str
    scene: Scene
    edit: Edit

    def sample(self) -> EditSample:
        """The item as training sees it."""
        edit, source = self.edit, to_image(draw(self.scene))
        return EditSample(
            self.key, source, edit.instruction, edit.requirement, edit.task, mask=Image.fromarray(255 * self.mask())
        )

    def mask(self) -> np.ndarray:
        """What the edit may change, [64, 64], uint8, 1 there: its parts as they are in the source or in the target."""
        parts = self.edit.parts
        if "all" in parts:
            return np.ones((SIZE, SIZE), np.uint8)
        shapes = [(thing, alpha(thing)) for thing in (*self.scene.things, *self.edit.target.things)]
        if "background" in parts:  # shows through where an object is not opaque
            stay = [shape >= 1 for thing, shape in shapes if str(thing.cell) not in parts]
            return (~np.any([np.zeros((SIZE, SIZE), bool), *stay], axis=0)).astype(np.uint8)
        return np.any([shape > 0 for thing, shape in shapes if str(thing.cell) in parts], axis=0).astype(np.uint8)


def names_of(level: Level) -> list[str]:
    """The objects of a level, in a fixed order: 32 in `small`, all of them in `full`."""
    names = list(artwork())
    return names[:32] if level == "small" else names


def split_of(scene: Scene) -> Split:
    """The split a scene belongs to: 7 of 10 scenes are `sft`, 2 `rl`, 1 `heldout`."""
    content = "|".join([scene.background, scene.pattern, *(f"{t.name}@{t.cell}" for t in scene.things)])
    bucket = zlib.crc32(content.encode()) % 10
    return "sft" if bucket < 7 else "rl" if bucket < 9 else "heldout"


def random_scene(rng: Rng, level: Level) -> Scene:
    """A scene of the level: `small` has 1-3 objects on a plain background, `full` 1-4 on any."""
    names = names_of(level)
    count = int(rng.integers(1, 4 if level == "small" else 5))
    cells = rng.permutation(4)[:count]
    chosen = rng.permutation(len(names))[:count]
    things = []
    for cell, index in zip(cells, chosen, strict=True):
        name = names[int(index)]
        colour = pick(rng, colours_for(name)) if rng.random() < 0.25 else None
        size = pick(rng, list(SIDES)) if rng.random() < 0.2 else "normal"
        things.append(Thing(name, int(cell), colour, size))
    ground = pick(rng, [name for name in BACKGROUNDS if name != "white"])
    pattern = "plain" if level == "small" else pick(rng, PATTERNS)
    return Scene(tuple(sorted(things, key=lambda thing: thing.cell)), ground, pattern)


def can_be_seen(scene: Scene, edit: Edit) -> bool:
    """Whether at least 24 pixels of the target differ clearly from the source."""
    distance = np.sqrt(((draw(scene) - draw(edit.target)) ** 2).mean(-1))
    return bool((distance > VISIBLE).sum() >= 24)


def make_item(level: Level, split: Split, seed: int, index: int) -> ToyItem:
    """Item `index` of a split, the same for ever for one (level, split, seed, index)."""
    task = TASKS[index % len(TASKS)]
    names = names_of(level)
    for attempt in range(1000):
        rng = np.random.default_rng([LEVELS.index(level), SPLITS.index(split), seed, index, attempt])
        scene = random_scene(rng, level)
        if split_of(scene) != split:
            continue
        edit = MAKERS[task](rng, scene, names)
        if edit is not None and can_be_seen(scene, edit):
            return ToyItem(f"toy/{level}/{split}/{seed}/{index}", scene, edit)
    raise RuntimeError(f"no scene of split {split} allows task {task} (seed {seed}, index {index})")


@lru_cache(maxsize=4096)
def item_from_key(key: str) -> ToyItem:
    """The item whose sample carries `key`; a key that this world does not make is a UserError."""
    parts = re.fullmatch(rf"toy/({'|'.join(LEVELS)})/({'|'.join(SPLITS)})/(\d+)/(\d+)", key)
    if parts is None:
        raise UserError(f"{key!r} is no toy item; keys look like toy/small/rl/0/17")
    level, split, seed, index = parts.groups()
    return make_item(level, split, int(seed), int(index))  # type: ignore[arg-type]


class ToyDataset:
    """`size` items of one split, as an `EditDataset`; the nine tasks follow each other in turn."""

    def __init__(self, split: Split, size: int, seed: int = 0, level: Level = "small") -> None:
        if split not in SPLITS or level not in LEVELS or size < 1:
            raise UserError(
                f"toy data: split must be one of {SPLITS}, level one of {LEVELS}, size at least 1; "
                f"got {split}, {level}, {size}"
            )
        self.split, self.size, self.seed, self.level = split, size, seed, level

    def __len__(self) -> int:
        return self.size

    def item(self, index: int) -> ToyItem:
        """The item behind `self[index]`, with its target: for measuring, never for training."""
        return make_item(self.level, self.split, self.seed, range(self.size)[index])

    def __getitem__(self, index: int) -> EditSample:
        return self.item(index).sample()
