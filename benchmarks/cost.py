"""What a step costs, one size at a time: `python benchmarks/cost.py`.

Trainers that differ in one size take turns, step by step. The toy preset with 2 groups of 12 edits is changed in group
size, groups, and lines of its data. The toy has one resolution and takes one picture, so resolution and references
are those of Qwen-Image-Edit-2511's pipeline with small random weights (`gpu_editors.py`); a group of 4 edits, whose
judge takes no time. Keys of benchmarks/results.json:

    cost                      by size and value: median, smallest and largest seconds of a step, images per hour of this
                              machine, which is one device, by the median
    images_per_device_hour    of the toy preset's own step
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import gpu
import results
import torch
from data_check import write
from recipe import ROUNDS, open_way, seconds_of, take_turns

from editr1.config.loading import load_config
from editr1.training.log import StepProgress
from editr1.training.trainer import Trainer

GROUPS, EDITS, SMALL_EDITS = 2, 12, 4
PRESET_GROUPS = 8  # of the toy preset
EDITOR = "qwen-image-edit-2511"
Open = Callable[[Path], Trainer]
"""Opens a trainer whose run is in a folder."""
SIZES: dict[str, tuple[int, ...]] = {
    "edits of a group": (4, 8, 12, 24),
    "groups": (1, 2, 4, PRESET_GROUPS),
    "lines of data": (1_000, 100_000, 1_000_000),
    "pixels of a side": (64, 128, 256),
    "references": (0, 1, 2),
}
QUICK: dict[str, tuple[int, ...]] = {"edits of a group": (2,), "references": (1,)}


def open_toy(folder: Path, groups: int = GROUPS, edits: int = EDITS, lines: int | None = None) -> Trainer:
    """A trainer of the toy preset on toy items, or on a folder of so many lines; no group is dropped."""
    sizes = [f"rollout.groups_per_step={groups}", f"rollout.group_size={edits}", "algorithm.filter=off"]
    if lines is not None:
        write(folder / "data", lines)
        sizes += ["data.kind=jsonl", f"data.path={folder / 'data'}"]
    return open_way(Trainer, load_config("toy", [*sizes, f"out={folder / 'run'}", "save_every=1000"]))


def open_random(folder: Path, side: int = 64, references: int = 0) -> Trainer:
    """A trainer of a pipeline with small random weights, on a source with references of the same size."""
    size = replace(gpu.TINY, side=side, edits=SMALL_EDITS, steps=6, references=references)
    trainer = gpu.open_trainer(EDITOR, gpu.Setting(checkpointing=False), size, torch.device("cpu"), folder)
    trainer.progress = StepProgress(0, trainer.config.steps, quiet=True)
    return trainer


def openers(name: str, values: tuple[int, ...]) -> dict[int, Open]:
    """How to open a trainer of each value of a size."""
    kinds: Mapping[str, Callable[[int], Open]] = {
        "edits of a group": lambda value: partial(open_toy, edits=value),
        "groups": lambda value: partial(open_toy, groups=value),
        "lines of data": lambda value: partial(open_toy, lines=value),
        "pixels of a side": lambda value: partial(open_random, side=value),
        "references": lambda value: partial(open_random, references=value),
    }
    return {value: kinds[name](value) for value in values}


def time_in_turn(opened: Mapping[int, Open], rounds: int) -> dict[int, dict[str, float]]:
    """Seconds of a step of each value, and its images per hour."""
    with tempfile.TemporaryDirectory() as name:
        folders = {value: Path(name) / str(value) for value in opened}
        for folder in folders.values():
            folder.mkdir()
        trainers = {value: act(folders[value]) for value, act in opened.items()}
        rows = take_turns(trainers, rounds)
    images = {value: images_of(trainer) for value, trainer in trainers.items()}
    return {value: row_of(seconds_of(each), images[value]) for value, each in rows.items()}


def images_of(trainer: Trainer) -> int:
    """Edits of a step."""
    return trainer.config.rollout.groups_per_step * trainer.config.rollout.group_size


def row_of(seconds: list[float], images: int) -> dict[str, float]:
    """The figures of a step's seconds."""
    middle = median(seconds)
    return {"median": middle, "least": min(seconds), "most": max(seconds), "images_per_hour": 3600 * images / middle}


def measure(quick: bool = False) -> dict[str, Any]:
    """The keys of results.json; `quick` makes one step of few sizes."""
    sizes, rounds = (QUICK, 1) if quick else (SIZES, ROUNDS)
    cost = {name: time_in_turn(openers(name, values), rounds) for name, values in sizes.items()}
    figures: dict[str, Any] = {"cost": cost}
    if not quick:
        figures["images_per_device_hour"] = cost["groups"][PRESET_GROUPS]["images_per_hour"]
    return figures


def main() -> None:
    """Measure, print, write."""
    figures = measure()
    print(json.dumps(figures, indent=1))
    results.add("cost", figures, "python benchmarks/cost.py")


if __name__ == "__main__":
    main()
