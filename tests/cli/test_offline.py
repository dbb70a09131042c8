"""Training on stored edits by the commands: check, train, report, doctor, and what is wrong in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from editr1.cli.main import app
from editr1.files import read_lines
from tests.training.stored import write_preferences

SMALL = (
    "rollout.groups_per_step=2",
    "algorithm.timesteps_per_image=1",
    "adapter.rank=2",
    "trackers=[]",
    "save_every=9",
)


def config(folder: Path) -> Path:
    """Settings of a run on preferences."""
    data = write_preferences(folder / "data")
    file = folder / "run.yaml"
    file.write_text(f"editor: {{path: toy}}\ndata: {{kind: preferences, path: {data}}}\nalgorithm: {{name: dpo}}\n")
    return file


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.mark.long
def test_a_run_is_checked_trained_measured_reported_and_diagnosed(tmp_path: Path) -> None:
    file, out = config(tmp_path), tmp_path / "out"
    evaluation = ("judge.path=toy", "evaluation.split=1", "evaluation.edits=1", "evaluation.steps=2", f"out={out}")
    checked = run("check", file, *SMALL, *evaluation)
    assert checked.exit_code == 0, checked.output
    assert "1 held-out items, 4 are left to train on" in checked.stdout and "15 pictures of 32x32" in checked.stdout
    trained = run("train", file, *SMALL, *evaluation, "steps=2")
    assert trained.exit_code == 0, trained.output
    rows = read_lines(out / "metrics.jsonl")
    assert [row["reward_mean"] for row in rows] == [None, None] and all(row["update_norm"] > 0 for row in rows)
    assert len(read_lines(out / "evaluation" / "after" / "rows.jsonl")) == 2  # its head, and one edit
    assert "loss " in trained.stderr and "(held-out items alone)" in trained.stderr
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Judge: not asked in training" in page and "Share of comparisons decided as the judge does" in page
    told = run("doctor", out)
    assert told.exit_code == 0 and "alarm" not in told.stdout.lower()


def test_missing_and_damaged_pictures_are_one_line_each(tmp_path: Path) -> None:
    file = config(tmp_path)
    (tmp_path / "data" / "1-rejected.png").write_bytes(b"no picture")
    for command in ("check", "train"):
        result = run(command, file, *SMALL, f"out={tmp_path / 'out'}")
        assert result.exit_code == 2
        (line,) = result.stderr.strip().splitlines()
        assert "1-rejected.png of item 'item-1'" in line and "replace it or drop the line" in line
    (tmp_path / "data" / "1-rejected.png").unlink()
    result = run("check", file, *SMALL, f"out={tmp_path / 'out'}")
    assert result.exit_code == 2 and "data.jsonl:2: there is no picture '1-rejected.png'" in result.stderr


def test_what_is_no_folder_of_groups_is_one_line(tmp_path: Path) -> None:
    result = run("check", "toy", "judge=null", "data.kind=groups", f"data.path={tmp_path}", f"out={tmp_path / 'out'}")
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert f"{tmp_path} holds no groups; name OUT/groups" in line or "name the folder `groups`" in line


def test_a_plan_is_for_runs_that_make_their_edits(tmp_path: Path) -> None:
    result = run("plan", config(tmp_path), "--gpus", "1xH100-80G")
    assert result.exit_code == 2 and "a plan is for runs that make and judge their edits" in result.stderr
