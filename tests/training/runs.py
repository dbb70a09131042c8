"""Short training runs on a tiny editor, by a judge that likes red."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from editr1.algorithms.base import find_algorithms
from editr1.config.settings import Config
from editr1.data.samples import EditSample
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from editr1.training import checkpoint
from editr1.training.step_row import StepRow
from editr1.training.trainer import Trainer

ONLINE = sorted(name for name, kind in find_algorithms().items() if kind.uses_rewards)
"""Algorithms that train on edits which are made and judged."""
TIMES = ("seconds", "images_per_s", "imbalance", "rank_seconds", "judge_latency")
G, STEPS, T = 2, 3, 2


class Colours:
    """Five items of one colour each."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> EditSample:
        source = Image.new("RGB", (32, 32), (50 * index, 10, 90))
        return EditSample(f"item-{index}", source, "make the cat red", task=("add", "remove")[index % 2])


def redness(request: JudgeRequest) -> float:
    return float(np.asarray(request.edit, np.float64)[..., 0].mean() / 255)


class RedJudge:
    """The mean red of the edit; `disturb` may do something else at a call, counted from 0."""

    remote = False

    def __init__(self, disturb: Callable[[int, list[Score]], list[Score]] = lambda call, scores: scores) -> None:
        self.disturb, self.calls = disturb, 0

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        self.calls += 1
        return self.disturb(self.calls - 1, [Score(redness(request)) for request in requests])


def at_call(number: int, error: BaseException) -> Callable[[int, list[Score]], list[Score]]:
    def disturb(call: int, scores: list[Score]) -> list[Score]:
        if call == number:
            raise error
        return scores

    return disturb


def settings(**changes: Any) -> Config:
    tree: dict[str, Any] = {
        "editor": {"path": "tiny", "dtype": "float32", "pixels": 1024},
        "judge": {"path": "red"},
        "data": {"path": "colours"},
        "rollout": {"group_size": G, "groups_per_step": 2, "steps": STEPS},
        "algorithm": {"kl": 0.1, "filter": "off", "timesteps_per_image": T, "old_rate": 0.3, "std": "group"},
        "optim": {"lr": 1e-3},
        "adapter": {"rank": 2, "alpha": 4},
        "steps": 4,
        "save_every": 2,
    }
    for key, value in changes.items():
        section, _, leaf = key.rpartition("__")
        (tree.setdefault(section, {}) if section else tree)[leaf] = value
    return Config.model_validate(tree)


Make = Callable[..., Trainer]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert [file.parent.name for file in files] == ["ema", "old", "policy", folder.name]
    return {f"{file.parent.name}/{name}": value for file in files for name, value in load_file(file).items()}


def rows_of(out: Path) -> list[StepRow]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_lines(out / "metrics.jsonl")]


def assert_same_run(one: Path, other: Path) -> None:
    assert rows_of(one) == rows_of(other)
    last = [checkpoint.latest(out / "checkpoints") for out in (one, other)]
    assert last[0] is not None and last[1] is not None
    assert last[0].name == last[1].name
    first, second = tensors_of(last[0]), tensors_of(last[1])
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def assert_stops_and_goes_on_exactly(folder: Path, trainer_in: Callable[[Path], Trainer]) -> Trainer:
    """A run that stops after a step and goes on is the one that never stopped, whose trainer this is, bit for bit."""
    whole = trainer_in(folder / "whole")
    whole.train()
    trainer_in(folder / "parts").train(until=1)
    trainer_in(folder / "parts").train()
    assert_same_run(folder / "whole", folder / "parts")
    return whole
