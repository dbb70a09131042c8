"""What --quiet and --verbose leave out and add."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.toy.assets import toy_path


def invoke(*arguments: str) -> tuple[int, str, list[str]]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr.splitlines()


@pytest.fixture
def evaluation(tmp_path: Path) -> list[str]:
    return ["eval", "toy", "--items", "9", "--edits", "1", "--steps", "2", "--out", str(tmp_path / "out")]


def test_quiet_leaves_the_result_line_alone(evaluation: list[str], tmp_path: Path) -> None:
    code, out, error = invoke("--quiet", *evaluation)
    assert (code, error) == (0, []) and out == f"Result: {tmp_path / 'out'}/results.json\n"


def test_without_it_models_that_are_loaded_are_named_and_a_table_is_shown(evaluation: list[str]) -> None:
    code, out, error = invoke(*evaluation)
    loaded = [f"Loading the editor {toy_path('qwen-image-edit')} ...", f"Loading the judge {toy_path('judge')} ..."]
    assert code == 0 and error in (
        loaded[:1],
        loaded,
    )  # a process loads a judge once; no bar, since this is no terminal
    assert "overall" in out and "\nResult: " in out


def test_quiet_still_tells_what_is_wrong() -> None:
    code, out, (line,) = invoke("-q", "train", "toy", "algorithm.kll=3")
    assert (code, out) == (2, "") and line.startswith("editr1: override algorithm.kll=3: unknown key")


def test_quiet_and_verbose_exclude_each_other() -> None:
    code, _, error = invoke("-q", "-v", "presets")
    assert code == 2 and any("give one of them" in line for line in error)


def test_verbose_shows_what_libraries_log() -> None:
    command = [sys.executable, "-m", "editr1", "--verbose", "editor", "probe", "toy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Loaded vae as AutoencoderKLQwenImage" in done.stderr and "Loading the editor" in done.stderr
