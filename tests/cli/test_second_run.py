"""A second command that would write into the folder of a running one is refused in one line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.cli import main as cli
from tests.cli.test_torchrun import FAULT, SIZES
from tests.held import held_by_another
from tests.ranks import torchrun

LINE = rf"^editr1: (rank 0: )?.*out is in use by process {os.getpid()} on .*; wait until it ends.*$"
TOY = ("train", "toy", *SIZES, "steps=1")


@pytest.mark.parametrize(
    "command", [("train", "toy", "out={}"), ("demo", "--out", "{}"), ("eval", "toy", "--out", "{}")]
)
def test_a_command_leaves_the_folder_of_another_one_alone(command: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held_by_another(out / ".lock"):
        result = CliRunner().invoke(cli.app, [word.format(out) for word in command])
    faults = FAULT.findall(result.stderr)
    assert result.exit_code == 2 and len(faults) == 1 and re.match(LINE, faults[0])
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_ranks_are_refused_by_their_main_one_and_the_same_command_goes_on_when_the_other_run_has_ended(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with held_by_another(out / ".lock"):
        result = torchrun(2, "editr1", *TOY, f"out={out}")
    faults = FAULT.findall(result.stderr)
    assert result.returncode != 0 and "exitcode  : 2" in result.stderr
    assert len(faults) == 1 and re.match(LINE, faults[0])
    result = torchrun(2, "editr1", *TOY, f"out={out}")
    assert result.returncode == 0, result.stderr[-3000:]
    assert [*out.rglob(".lock")] == [out / ".lock"]
    checkpoint = out / "checkpoints" / "step_000001"
    assert checkpoint.is_dir() and CliRunner().invoke(cli.app, ["report", str(out)]).exit_code == 0
    assert "in use by" not in (out / "report.html").read_text()
