"""What is read of a run's folder while the run goes on, in pieces of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editr1.config.loading import load_config
from editr1.errors import UserError
from editr1.report.watch.following import Followed, Tail
from editr1.report.watch.view import card, names_of, time_left
from editr1.training.alarms import sounded
from editr1.training.metrics import read_metrics
from tests.report.synthetic import write_metrics


def content_of(folder: Path, steps: int) -> bytes:
    write_metrics(folder, steps)
    return (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("size", [1, 700, 5000, 10**6])
def test_a_file_that_is_read_in_pieces_has_the_rows_of_the_whole_one(tmp_path: Path, size: int) -> None:
    content = content_of(tmp_path, 5)
    file = tmp_path / "growing.jsonl"
    tail = Tail(file)
    assert not tail.read()
    for end in range(0, len(content) + size, size):
        file.write_bytes(content[:end])
        tail.read()
    assert [*tail.rows.values()] == read_metrics(tmp_path / "metrics.jsonl")[0] and tail.fault == ""
    assert not tail.read()


def test_rows_of_a_run_that_goes_on_from_an_earlier_step_replace_those_that_were_cut(tmp_path: Path) -> None:
    file = tmp_path / "growing.jsonl"
    lines = content_of(tmp_path, 6).splitlines(keepends=True)
    file.write_bytes(b"".join(lines))
    tail = Tail(file)
    tail.read()
    file.write_bytes(b"".join(lines[:3]))
    assert tail.read() and [*tail.rows] == [1, 2, 3]
    file.unlink()
    assert tail.read() and [*tail.rows] == []


def test_damaged_lines_are_left_out_and_told(tmp_path: Path) -> None:
    first, second, *_ = content_of(tmp_path, 2).splitlines(keepends=True)
    odd = json.dumps({**json.loads(first), "step": 3, "groups_kept": -1}).encode() + b"\n"
    (tmp_path / "metrics.jsonl").write_bytes(first + b"garbage\xff\n" + odd + second)
    run = Followed(tmp_path)
    assert [row["step"] for row in run.run.metrics] == [1, 2]
    assert "a damaged line is left out" in run.fault
    assert not run.look() and "a damaged line" in card(run)["fault"]
    (tmp_path / "config.yaml").write_text("steps: [")
    (tmp_path / "metrics.jsonl").write_bytes(first)
    assert run.look() and "config.yaml" in run.fault


def test_alarms_that_are_heard_step_by_step_are_those_of_the_whole_run(tmp_path: Path) -> None:
    config = load_config("toy", [f"out={tmp_path}"])
    content_of(tmp_path, 30)
    rows: list[dict[str, Any]] = read_metrics(tmp_path / "metrics.jsonl")[0]
    for row in rows:
        row["grad_norm"] = 9.0
        row["reward_mean"] = row["reward_mean"] if row["step"] < 20 else 0.01
    (tmp_path / "metrics.jsonl").write_text("")
    run = Followed(tmp_path)
    for row in rows:
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        assert run.look()
    assert run.alarms == sounded(rows, config.optim.grad_clip)
    assert {alarm.name for _, _, alarm in run.alarms} >= {"reward collapsed", "gradient always clipped"}


def test_time_left_is_that_of_the_last_steps() -> None:
    rows = [{"step": step, "seconds": {"rollout": 90.0 if step == 1 else 20.0, "train": 10.0}} for step in range(1, 13)]
    assert time_left(rows, 15) == "about 1 min 30 s left"
    assert time_left(rows, 12) == "all steps are done"
    assert time_left([], 12) == "the first step is not done yet"


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for name in ("a/run", "b/run", "c"):
        write_metrics(tmp_path / name, 1)
    runs = [Followed(tmp_path / name) for name in ("a/run", "b/run", "c")]
    assert names_of(runs) == [str(tmp_path / "a/run"), str(tmp_path / "b/run"), "c"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        Followed(tmp_path)
