"""`editr1 train` by a reward of the user's own: without a judge, beside a dead judge, and with faults of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from editr1.cli import main as cli
from editr1.files import read_lines

MODULE = """
import numpy as np
def red(source, edit, instruction, requirement, task): return float(np.asarray(edit)[..., 0].mean() / 255)
def raises(source, edit, *_): return 0.5 if edit == source else {}["colour"]
def large(source, edit, *_): return 0.5 if edit == source else 7
"""  # the last two pass the check before the run, which shows them a picture as its own edit
DEAD = {"endpoints": ["http://127.0.0.1:9/v1"], "model": "m", "tries": 1, "timeout": 1.0}


@pytest.fixture
def folder(tmp_path: Path, tiny_editor_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run.yaml of a tiny editor, two pictures and a module with functions."""
    (tmp_path / "own_functions.py").write_text(MODULE)
    for name in ("red", "blue"):
        Image.new("RGB", (32, 32), name).save(tmp_path / f"{name}.png")
    lines = [json.dumps({"source": f"{name}.png", "instruction": "add a cat"}) for name in ("red", "blue")]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    config = {
        "editor": {"path": str(tiny_editor_path), "dtype": "float32", "device": "cpu", "pixels": 1024},
        "data": {"path": str(tmp_path)},
        "rollout": {"group_size": 2, "groups_per_step": 2, "steps": 2},
        "algorithm": {"filter": "off", "std": "group"},
        "adapter": {"rank": 2},
        "steps": 2,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(function: str, *overrides: str) -> Result:
    own = f"rewards={{own: {{kind: function, path: 'own_functions:{function}'}}}}"
    return CliRunner().invoke(cli.app, ["train", "run.yaml", own, "out=out", *overrides])


def rows() -> list[dict[str, Any]]:
    return read_lines(Path("out/metrics.jsonl")) if Path("out/metrics.jsonl").exists() else []


@pytest.mark.usefixtures("folder")
def test_an_own_reward_alone_trains_without_a_judge_and_its_report_says_so() -> None:
    result = train("red")
    assert result.exit_code == 0, result.output
    assert [row["parts_unscored"] for row in rows()] == [{"own": 0}] * 2
    assert all(row["reward_parts"]["own"] == pytest.approx(row["reward_mean"], abs=1e-6) for row in rows())
    assert all(row["grad_norm"] > 0 for row in rows())
    assert CliRunner().invoke(cli.app, ["report", "out"]).exit_code == 0
    assert "none: the rewards alone" in Path("out/report.html").read_text()
    assert train("red", "steps=3").exit_code == 0 and len(rows()) == 3  # and goes on


@pytest.mark.usefixtures("folder")
def test_an_own_function_that_raises_stops_the_first_step_with_its_traceback() -> None:
    result = train("raises")
    assert result.exit_code == 1 and isinstance(result.exception, KeyError) and not rows()


@pytest.mark.usefixtures("folder")
def test_an_own_function_that_returns_seven_stops_the_first_step_with_one_line() -> None:
    result = train("large")
    assert result.exit_code == 2 and not rows()
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("editr1: ")]
    assert "own_functions:large: gave 7, not a number in [0, 1]" in line


@pytest.mark.usefixtures("folder")
def test_a_judge_that_dies_beside_an_own_reward_stops_the_run_and_is_seen_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("editr1.training.preflight.check_judge", lambda *_: [])  # it dies after the check
    result = train("red", f"judge={json.dumps(DEAD)}", "failures.steps=2", "steps=9")
    assert result.exit_code == 2
    assert "the reward 'judge' is missing for 4 of the last step's 4 edits" in result.stderr
    assert "no judge for 4 edits" in result.stderr
    assert [(row["unscored"], row["parts_unscored"]) for row in rows()] == [(0, {"judge": 4, "own": 0})] * 2
    assert rows()[0]["parts_reasons"]["judge"][0].startswith("4 x no answer from 127.0.0.1:9")
    assert CliRunner().invoke(cli.app, ["report", "out"]).exit_code == 0
    page = Path("out/report.html").read_text()
    assert "Edits without the reward “judge”: 8 (last: 4 x no answer from 127.0.0.1:9" in page
