"""The comparison of two runs finds what differs, and only that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from editr1.training import checkpoint

SCRIPT = Path(__file__).parents[2] / "scripts/same_run.py"


def run(folder: Path, reward: float = 0.5, weight: float = 1.0, steps: int = 2, seconds: float = 1.0) -> Path:
    folder.mkdir()
    rows = [{"step": step + 1, "reward_mean": reward, "seconds": {"rollout": seconds}} for step in range(steps)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tensors = {"a": torch.tensor([weight])}
    state = {"seconds": 1, "start": {}, "config": {}}
    checkpoint.save(
        folder / "checkpoints", steps, state, lambda part: save_file(tensors, part / "w.safetensors"), keep=1
    )
    return folder


def compare(one: Path, other: Path) -> tuple[int, str]:
    command = [sys.executable, str(SCRIPT), str(one), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_runs_that_differ_in_their_timings_alone_are_the_same(tmp_path: Path) -> None:
    assert compare(run(tmp_path / "a"), run(tmp_path / "b", seconds=9.0)) == (0, "The same: 2 steps, 1 tensors.\n")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"reward": 0.6}, "step 1: reward_mean: 0.5, 0.6"),
        ({"weight": 2.0}, "weights: checkpoints/step_000002/w.safetensors: a"),
        ({"steps": 3}, "2 steps, 3 steps"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, change: dict[str, float], line: str) -> None:
    code, output = compare(run(tmp_path / "a"), run(tmp_path / "b", **change))  # type: ignore[arg-type]
    assert code == 1 and line in output.splitlines()
