"""The options of `editr1 data build`: what cannot be meant is one line, before any model is opened."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.data.holdout import hold_out
from editr1.data.samples import JsonlDataset
from tests.recipe.scenes import make_scenes
from tests.recipe.scripted import ScriptedServer


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "remove,paint"], "--tasks paint: there are replace, adjust"),
        (["--smallest", "0.5", "--largest", "0.5"], "--smallest 0.5 must be below --largest 0.5"),
        (["--boxes", "b.json", "--detector", "d"], "--boxes and --detector: give one of them"),
        (["--detector", "nowhere"], "--detector: no folder at nowhere"),
        (["--model", "openai:"], "--model openai:: "),
    ],
)
def test_wrong_options_are_told_in_one_line(tmp_path: Path, options: list[str], words: str) -> None:
    make_scenes(tmp_path / "pictures", 1)
    command = ["data", "build", str(tmp_path / "pictures"), "--out", str(tmp_path / "out"), "--model", "none.yaml"]
    result = CliRunner().invoke(app, [*command, *options])
    assert result.exit_code == 2 and words in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_folder_without_pictures_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    result = CliRunner().invoke(app, ["data", "build", str(tmp_path), "--out", "out", "--model", "toy"])
    assert result.exit_code == 2 and "there is no picture in it" in result.stderr


def test_what_is_built_passes_data_check(tmp_path: Path) -> None:
    known = make_scenes(tmp_path / "pictures", 4)
    with ScriptedServer([*known.values()]) as server:
        command = ["data", "build", str(tmp_path / "pictures"), "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*command, "--model", server.model, "--tasks", "remove,redbox"])
    assert result.exit_code == 0 and result.stdout.split() == [
        *("4", "redbox", "4", "remove", "8", "items"), str(tmp_path / "out")
    ]  # fmt: skip
    checked = CliRunner().invoke(app, ["data", "check", str(tmp_path / "out")])
    assert checked.exit_code == 0, checked.output

    items = JsonlDataset(tmp_path / "out")
    assert len(set(items.sources)) == 4  # a red box makes another file of a picture, and no other picture
    for part in hold_out(items, items.sources, 2):
        assert Counter(items.lines[index].task for index in part.indices) in (
            {"redbox": 3, "remove": 3},
            {"redbox": 1, "remove": 1},
        )


def test_an_editor_is_measured_on_what_is_built(tmp_path: Path) -> None:
    known = make_scenes(tmp_path / "pictures", 2)
    with ScriptedServer([*known.values()]) as server:
        command = ["data", "build", str(tmp_path / "pictures"), "--out", str(tmp_path / "out"), "--model", server.model]
        assert CliRunner().invoke(app, [*command, "--tasks", "remove,redbox"]).exit_code == 0
    measure = ["eval", "data", str(tmp_path / "out"), "--editor", "toy", "--judge", "toy", "--steps", "2"]
    measured = CliRunner().invoke(app, [*measure, "--out", str(tmp_path / "measured")])
    assert measured.exit_code == 0, measured.output
    assert re.search(r"redbox .*\b2\b", measured.stdout) and re.search(r"remove .*\b2\b", measured.stdout)
