"""`editr1 ablate`: several processes share a grid, and a wrong word is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from editr1.cli import main as cli
from tests.ablation.test_runs import GRID


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID.model_dump(mode="json"), sort_keys=False))
    return path


@pytest.mark.long
def test_two_processes_train_all_runs_and_the_asking_one_reports(grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "editr1", "ablate", str(grid), "--out", str(out), "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *lines, page = done.stdout.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(
        f"{variant}, seed 0, step {step}" for variant in GRID.variants for step in (1, 3)
    )
    assert page == str(out / "ablation.html") and Path(page).is_file()


def test_an_unknown_variant_and_a_wrong_setting_are_told_before_anything_is_trained(grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(cli.app, ["ablate", str(grid), "--out", str(out), "--only", "none"])
    assert result.exit_code == 2
    assert result.stderr == f"editr1: --only none: {grid} has no such variant; it has usual, scouts\n"
    grid.write_text(grid.read_text().replace("rollout.scouts=3", "rollout.scouts=1"))
    result = CliRunner().invoke(cli.app, ["ablate", str(grid), "--out", str(out)])
    assert result.exit_code == 2 and result.stderr.startswith("editr1: variant scouts: ") and not out.exists()


def test_a_report_of_nothing_says_what_is_missing(grid: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["ablate", str(grid), "--out", str(tmp_path / "out"), "--what", "report"])
    assert result.exit_code == 2 and "no run of 'usual' is measured" in result.stderr
