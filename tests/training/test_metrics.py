"""Rows are told from damaged lines, and no damaged line is lost."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from editr1.files import read_lines
from editr1.training.metrics import read_metrics, restore_metrics

ROW: dict[str, Any] = {
    "reward_mean": 0.5,
    "reward_by_task": {"add": None},
    "unscored": 0,
    "groups_kept": 1,
    "dropped": {},
    "seconds": {},
}


def write(file: Path, *lines: dict[str, Any] | str) -> None:
    file.write_text("".join((line if isinstance(line, str) else json.dumps({**ROW, **line})) + "\n" for line in lines))


def test_rows_are_in_the_order_of_the_steps_and_the_later_of_two_counts(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    write(file, {"step": 3}, "{", {"step": 1, "loss": 1}, {"step": 2}, {"step": 1, "loss": math.nan})
    rows, damaged = read_metrics(file)
    assert [row["step"] for row in rows] == [1, 2, 3] and math.isnan(rows[0]["loss"])
    assert damaged == {2: b"{", 3: json.dumps({**ROW, "step": 1, "loss": 1}).encode()}
    assert read_metrics(tmp_path / "none") == ([], {})


def test_a_run_that_goes_on_keeps_damaged_lines_of_each_time_aside_and_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, aside = tmp_path / "metrics.jsonl", tmp_path / "metrics.jsonl.damaged"
    write(file, {"step": 1}, '{"step": 2', {"step": 3}, "x", {"step": 4})
    assert [row["step"] for row in restore_metrics(file, 3)] == [1, 3]
    assert capsys.readouterr().err.splitlines() == [
        f"editr1: warning: {file}:2: 2 damaged lines are kept in metrics.jsonl.damaged",
        f"editr1: warning: {file} lacks the rows of 1 of 3 steps; the run goes on without them",
    ]
    assert aside.read_text() == '{"step": 2\nx\n' and [row["step"] for row in read_lines(file)] == [1, 3, 4]
    write(file, {"step": 1}, {"step": 2}, "y")
    restore_metrics(file, 2)
    assert aside.read_text() == '{"step": 2\nx\ny\n'
    capsys.readouterr()
    assert len(restore_metrics(file, 2)) == 2 and capsys.readouterr().err == ""
