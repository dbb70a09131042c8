"""`torchrun -m editr1 eval` and a run's own evaluation: the results of one process, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editr1.files import read_lines
from tests.evaluation.benchmarks.folders import imgedit_folder
from tests.ranks import torchrun

TOY = ("--items", "18", "--edits", "1", "--steps", "2")  # three batches of the judge
TIMES = ("seconds", "images_per_s")


def evaluate(ranks: int, out: Path, *arguments: str) -> dict[str, Any]:
    result = torchrun(ranks, "editr1", "eval", *arguments, "--out", str(out))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("Result: ") == 1  # of the main rank alone
    return json.loads((out / "results.json").read_text())


def files_of(out: Path) -> dict[str, bytes]:
    """All pictures and rows below a folder."""
    paths = sorted(path for path in out.rglob("*") if path.suffix in (".png", ".jsonl"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_two_ranks_evaluate_as_one_process_does(tmp_path: Path) -> None:
    one, two = (evaluate(ranks, tmp_path / str(ranks), "toy", *TOY) for ranks in (1, 2))
    assert one == two
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_an_evaluation_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    whole = evaluate(2, tmp_path, "toy", *TOY)
    rows = tmp_path / "edits" / "rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:9]))  # the settings, and the rows of the first batch
    assert evaluate(1, tmp_path, "toy", *TOY) == whole
    assert sorted(rows.read_text().splitlines(keepends=True)) == sorted(lines)


@pytest.mark.parametrize("picked", [(), ("--best-of", "2")], ids=["one edit", "best of two"])
def test_two_ranks_run_a_benchmark_as_one_process_does(tmp_path: Path, picked: tuple[str, ...]) -> None:
    data = imgedit_folder(tmp_path / "data")
    judge = "toy?batch_size=2"  # five batches: each rank judges some
    asked = ("imgedit", "--data", str(data), "--editor", "toy", "--judge", judge, "--steps", "2", *picked)
    one, two = (evaluate(ranks, tmp_path / str(ranks), *asked) for ranks in (1, 2))
    assert one == two
    left, right = files_of(tmp_path / "1"), files_of(tmp_path / "2")
    assert left.keys() == right.keys()
    for name in left:
        if name.endswith(".png"):
            assert left[name] == right[name], name
    answers = [read_lines(tmp_path / ranks / "answers.jsonl") for ranks in "12"]
    assert answers[0] == answers[1] and len(answers[0]) > 9
    for official in ("result.json", "typescore.json", "results.csv"):
        assert (tmp_path / "1" / official).read_bytes() == (tmp_path / "2" / official).read_bytes()
    if picked:
        picks = [{line["key"]: line for line in read_lines(tmp_path / ranks / "picks.jsonl")} for ranks in "12"]
        assert picks[0] == picks[1]


def test_two_ranks_measure_a_run_on_held_out_items_as_one_process_does(tmp_path: Path) -> None:
    sizes = ("rollout.groups_per_step=2", "rollout.group_size=4", "rollout.steps=2", "steps=2", "data.size=20")
    held = ("evaluation.split=9", "evaluation.edits=1", "evaluation.steps=2", "evaluation.every=1", "optim.lr=3e-4")
    for ranks in (1, 2):
        out = f"out={tmp_path / str(ranks)}"
        result = torchrun(ranks, "editr1", "train", "toy", *sizes, *held, out)
        assert result.returncode == 0, result.stderr[-3000:]
        assert (tmp_path / str(ranks) / "report.html").exists()
    one, two = (json.loads((tmp_path / ranks / "results.json").read_text()) for ranks in "12")
    before = [read_lines(tmp_path / ranks / "evaluation" / "before" / "rows.jsonl")[1:] for ranks in "12"]
    assert before[0] == before[1]  # bit for bit: the weights are those of the editor
    assert [point["step"] for point in one["curve"]] == [point["step"] for point in two["curve"]] == [1, 2]
    assert two["judge"]["after"] == pytest.approx(one["judge"]["after"], rel=1e-4)


def test_processes_and_ranks_exclude_each_other(tmp_path: Path) -> None:
    data = imgedit_folder(tmp_path / "data", items=2)
    asked = ("--data", str(data), "--editor", "toy", "--judge", "toy", "--processes", "2", "--out", str(tmp_path / "o"))
    result = torchrun(2, "editr1", "eval", "imgedit", *asked)
    assert result.returncode != 0 and "leave it out" in result.stderr
