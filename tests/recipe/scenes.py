"""A folder of toy scenes whose content is known."""

from __future__ import annotations

from pathlib import Path

from editr1.toy.world import ToyDataset
from tests.recipe.scripted import SIGNS, Known, make_known


def make_scenes(folder: Path, count: int) -> dict[str, Known]:
    """`count` pictures in a folder, by name; every third one has a sign."""
    folder.mkdir(parents=True)
    items = ToyDataset("rl", count, seed=11)
    known = {}
    for index in range(count):
        sign = SIGNS[index // 3 % len(SIGNS)] if index % 3 == 0 else None
        known[f"scene-{index:02d}.png"] = make_known(items.item(index).scene, sign)
    for name, one in known.items():
        one.picture.save(folder / name)
    return known
