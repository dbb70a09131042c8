"""Items with stored edits: red is better, blue is worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.config.settings import Config
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
    algorithm = {"name": {"preferences": "dpo", "pairs": "sft"}[kind], "timesteps_per_image": 2}
    own = {"judge": None, "data": {"kind": kind, "path": "stored"}, "algorithm": algorithm, "steps": 3}
    return settings(**{**own, "rollout": {"groups_per_step": 2, "steps": 3}, **changes})


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
