"""What a judge should notice before it answers: supervision of the prompt's last positions, in training only.

A score alone says little about why. The oracle's own steps can be taught one by one: what is where in both pictures,
and whether each place is as asked. Each step is the label of one position of the question, just before the answer, so
that the answer position can use it; and each kind of step is read from a middle layer (`LAYERS`), so that the next
layer can use it. The prompt and the question to the trained judge stay as they are.
"""

from __future__ import annotations

import numpy as np

from editr1.toy.oracle import match
from editr1.toy.scene import CELL, SIZE, Scene, alpha, draw
from editr1.toy.world import ToyItem

Hint = str | float | None  # a word; the probability of "yes"; nothing known
COUNT = 21
SEEN_HINTS = 11  # the first hints are of what is seen, the other words of what is wanted
LAYERS = {"seen": 3, "wanted": 4, "right": 6}  # of 7, after which a kind of hint is read


def hints(item: ToyItem, picture: np.ndarray, scene: Scene | None) -> list[Hint]:
    """What is seen, what is wanted, and whether each place is as wanted.

    Objects of the source and of the edit by cell, both grounds, the edit's style; the target's objects by cell and its
    ground; then, for each cell and the ground, the probability that it is right.

    Args:
        item: The item that was edited.
        picture: The edit, [64, 64, 3] in [0, 1].
        scene: The scene of the edit, if it was drawn from one.
    """
    labels: list[Hint] = [*_things(item.scene), *(_things(scene) if scene else [None] * 4)]
    labels.append(item.scene.background)
    labels += [scene.background, (scene.style or "plain").split()[0]] if scene else [None, None]
    target = item.edit.target
    labels += [*_things(target), target.background]
    right = match(picture, draw(target))
    return labels + [float(right[mask].mean()) for mask in _places(item)]


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
