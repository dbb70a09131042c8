"""Items with stored edits: red is better, blue is worse."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from editr1.config.settings import Config
from editr1.editors.editor import Rollout
from editr1.editors.recorder import Conditioning
from editr1.judges.base import Weights
from editr1.training.group import Group
from editr1.training.groups import GroupDataset
from editr1.training.keeping import GroupFolder
from tests.training.runs import Colours, settings


class Edited(Colours):
    """Five items, each with a red edit and a blue one, or with the red one alone."""

    def __init__(self, count: int) -> None:
        self.count = count

    def edits(self, index: int) -> list[Image.Image]:
        colours = (200, 20 + 10 * index, 30), (30, 20 + 10 * index, 200)
        return [Image.new("RGB", (32, 32), colour) for colour in colours[: self.count]]


def stored_settings(kind: str = "preferences", **changes: Any) -> Config:
    """Settings of a run on stored edits; no judge."""
    name = {"preferences": "dpo", "pairs": "sft", "groups": "nft"}[kind]
    algorithm = {"name": name, "timesteps_per_image": 2}
    own = {"judge": None, "data": {"kind": kind, "path": "stored"}, "algorithm": algorithm, "steps": 3}
    return settings(**{**own, "rollout": {"groups_per_step": 2, "steps": 3}, **changes})


def write_groups(folder: Path, count: int = 5, size: int = 3) -> GroupDataset:
    """Groups of random edits, as a run with two rewards could have kept them; some edits lack one reward, or both."""
    generator, data = torch.Generator().manual_seed(7), Colours()
    levels = torch.tensor([1.0, 0.7, 0.3])

    def groups() -> Generator[Group]:
        for index in range(count):
            latents, rewards = (torch.randn(size, *shape, generator=generator) for shape in ((4, 16), (2,)))
            red, other = rewards.sigmoid().T.clone()
            other[index % 2 :] = math.nan
            red[: index % 3] = math.nan
            missing = {
                name: ["no answer" if each.isnan() else None for each in values]
                for name, values in (("red", red), ("other", other))
            }
            both = torch.stack([red, other]).nanmean(dim=0)
            reasons = ["no answer" if each.isnan() else None for each in both]
            nothing = Conditioning({}, {}, None, (4, 16), torch.float32, torch.float32)
            made = Rollout(nothing, latents, [], levels, calls=[])
            yield Group(index, data[index], made, both, reasons, {"red": red, "other": other}, missing)

    for _ in GroupFolder(folder, Weights({"red": 1.0, "other": 0.5})).kept(groups(), 1):
        pass
    return GroupDataset(folder)


def write_preferences(folder: Path, count: int = 5) -> Path:
    """A folder with a data.jsonl of the preferences of `Edited`."""
    folder.mkdir(parents=True, exist_ok=True)
    data, lines = Edited(2), []
    for index in range(count):
        pictures = dict(zip(("source", "chosen", "rejected"), (data[index].source, *data.edits(index)), strict=True))
        for name, picture in pictures.items():
            picture.save(folder / f"{index}-{name}.png")
        names = {name: f"{index}-{name}.png" for name in pictures}
        item = data[index]
        lines.append({**names, "instruction": item.instruction, "task": item.task, "key": item.key})
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder
