"""What a judge should have noticed before it answers: supervision of the prompt's last positions, training only.

A score alone says little about why. The oracle's own steps can be taught apart: what stands where in both pictures, and
whether each place is as asked. Each step is the label of one position of the question, just before the answer, so that
the answer position finds the steps done; and each kind of step is read from a middle layer (`LAYERS`), so that the next
layer can use it. The prompt, and what the trained judge is asked, stay as they are.
"""

from __future__ import annotations

import numpy as np

from editr1.toy.oracle import match
from editr1.toy.scene import CELL, SIZE, Scene, alpha, draw
from editr1.toy.world import ToyItem

Hint = str | float | None  # a word; the probability of "yes"; nothing known
COUNT = 21
SEEN = 11  # the first hints are of what is seen, the other words of what is wanted
LAYERS = {"seen": 3, "wanted": 4, "right": 6}  # of 7, after which a kind of hint is read


def hints(item: ToyItem, picture: np.ndarray, shown: Scene | None) -> list[Hint]:
    """What is seen, what is wanted, and whether each place is as wanted.

    Objects of the source and of the edit by cell, both grounds, the edit's style; the target's objects by cell and its
    ground; then, for each cell and the ground, the probability that it is right.

    Args:
        item: what was asked.
        picture: the edit, [64, 64, 3] in [0, 1].
        shown: the scene behind the edit, where it was drawn from one.
    """
    seen: list[Hint] = [*_things(item.scene), *(_things(shown) if shown else [None] * 4)]
    seen.append(item.scene.background)
    seen += [shown.background, (shown.style or "plain").split()[0]] if shown else [None, None]
    target = item.edit.target
    seen += [*_things(target), target.background]
    right = match(picture, draw(target))
    return seen + [float(right[mask].mean()) for mask in _places(item)]


def _things(scene: Scene) -> list[str]:
    return [thing.name if (thing := scene.at(cell)) else "empty" for cell in range(4)]


def _places(item: ToyItem) -> list[np.ndarray]:
    """Five masks [64, 64]: each cell's objects, before and after (all of an empty cell), and the ground."""
    ground = np.ones((SIZE, SIZE), bool)
    masks = []
    for cell in range(4):
        things = [thing for scene in (item.scene, item.edit.target) if (thing := scene.at(cell))]
        mask = np.zeros((SIZE, SIZE), bool)
        for thing in things:
            mask |= alpha(thing) > 0.5
            ground &= alpha(thing) == 0
        if not things:
            mask[cell // 2 * CELL :, cell % 2 * CELL :][:CELL, :CELL] = True
        masks.append(mask)
    return [*masks, ground]
