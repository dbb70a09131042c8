"""Edits as on the web: right, not done, done wrongly, or done with damage elsewhere.

The editor is trained on a mixture of these (so that it can do most edits, but does each only some of the time); the
judge learns to tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from editr1.config.data import Level
from editr1.toy.scene import BACKGROUNDS, Scene, colours_for, draw, to_array, to_image
from editr1.toy.tasks import MAKERS, TASKS, Rng, new_thing, pick
from editr1.toy.world import ToyItem, names_of

NOISE = {"right": 0.50, "unchanged": 0.18, "wrong": 0.14, "damage": 0.18}
"""Shares of the editor's supervision: half of the targets are wrong."""
CANDIDATES = {
    "right": 0.3,
    "unchanged": 0.12,
    "wrong": 0.2,
    "damage": 0.2,
    "other": 0.06,
    "wrong+damage": 0.06,
    "damage+damage": 0.06,
}
"""Shares of what the judge learns from."""


@dataclass(frozen=True)
class Candidate:
    """One edit of an item: how it was made, what it shows, and the picture itself ([64, 64, 3] in [0, 1])."""

    kind: str
    scene: Scene
    picture: np.ndarray


def wrong(rng: Rng, item: ToyItem, level: Level) -> Scene:
    """The same task done to the wrong object, in the wrong colour or place."""
    for _ in range(20):
        other = MAKERS[item.edit.task](rng, item.scene, names_of(level))
        if other is not None and other.target != item.edit.target:
            return other.target
    return item.scene


def damage(rng: Rng, scene: Scene, keep: tuple[str, ...], level: Level) -> Scene:
    """The scene with one more thing changed than was asked: the background, or an object outside `keep`."""
    free = [thing for thing in scene.things if str(thing.cell) not in keep]
    if scene.background == "white" or (free and rng.random() < 0.5):
        if not free:
            empty = scene.free()
            return scene.put(new_thing(rng, scene, names_of(level), int(rng.choice(empty)))) if empty else scene
        thing = free[int(rng.integers(len(free)))]
        if rng.random() < 0.5:
            return scene.without(thing.cell)
        return scene.put(replace(thing, colour=pick(rng, [c for c in colours_for(thing.name) if c != thing.colour])))
    return replace(
        scene, background=pick(rng, [name for name in BACKGROUNDS if name not in (scene.background, "white")])
    )


def other_task(rng: Rng, item: ToyItem, level: Level) -> Scene:
    """An edit of another task."""
    edit = MAKERS[pick(rng, TASKS)](rng, item.scene, names_of(level))
    return edit.target if edit else item.scene


def corrupt(rng: Rng, kind: str, item: ToyItem, level: Level) -> Scene:
    """The scene after an edit of one of the kinds in `CANDIDATES`."""
    target, keep = item.edit.target, item.edit.parts
    makers: dict[str, Callable[[], Scene]] = {
        "right": lambda: target,
        "unchanged": lambda: item.scene,
        "wrong": lambda: wrong(rng, item, level),
        "damage": lambda: damage(rng, target, keep, level),
        "other": lambda: other_task(rng, item, level),
        "wrong+damage": lambda: damage(rng, wrong(rng, item, level), (), level),
        "damage+damage": lambda: damage(rng, damage(rng, target, keep, level), keep, level),
    }
    return makers[kind]()


def noisy_target(rng: Rng, item: ToyItem, level: Level) -> tuple[str, Scene]:
    """(kind, scene): the supervision that the editor gets, wrong in half of the cases."""
    kind = str(rng.choice(list(NOISE), p=list(NOISE.values())))
    return kind, corrupt(rng, kind, item, level)


def candidate(rng: Rng, item: ToyItem, level: Level) -> Candidate:
    """An edit of any quality, for the judge: wrong in many ways, then maybe blended, blurred, noisy or brighter."""
    kind = str(rng.choice(list(CANDIDATES), p=list(CANDIDATES.values())))
    scene = corrupt(rng, kind, item, level)
    return Candidate(kind, scene, degrade(rng, draw(scene), draw(item.scene)))


def degrade(rng: Rng, picture: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Half of the time: blend with the source, blur, noise, or a brightness change, of random strength."""
    roll = rng.random()
    if roll < 0.10:
        weight = rng.uniform(0.3, 0.9)
        return (weight * picture + (1 - weight) * source).astype(np.float32)
    if roll < 0.22:
        return to_array(to_image(picture).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2.0))))
    if roll < 0.36:
        return np.clip(picture + rng.normal(0, rng.uniform(0.02, 0.15), picture.shape), 0, 1).astype(np.float32)
    if roll < 0.44:
        return np.clip(picture * rng.uniform(0.8, 1.2) + rng.uniform(-0.1, 0.1), 0, 1).astype(np.float32)
    if roll < 0.56:
        small = to_image(picture).resize((int(rng.integers(24, 56)),) * 2, Image.Resampling.BILINEAR)
        return to_array(small.resize((64, 64), Image.Resampling.BICUBIC))
    return picture
