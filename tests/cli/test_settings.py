import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.config.loading import dump_config, load_config
from editr1.config.presets import additions, presets, read_preset


def invoke(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_presets_are_listed_with_their_editor_and_the_comment_of_their_file() -> None:
    code, text, _ = invoke("presets")
    rows = json.loads(invoke("presets", "--json")[1])
    assert code == 0 and [row["name"] for row in rows] == [*presets(), *additions()]
    for row in rows:
        lines = read_preset(row["name"]).splitlines()
        about = " ".join(line[1:].strip() for line in lines[: next(i for i, x in enumerate(lines) if x[0] != "#")])
        assert row["about"] == about and about
        if row["name"] in presets():
            assert row["editor"] == load_config(row["name"]).editor.path
        assert f"{row['editor']} {about}" in " ".join(text.split())


@pytest.mark.parametrize("columns", [20, 80, 200])
@pytest.mark.parametrize("command", [("presets",), ("config", "show", "toy"), ("editor", "list")])
def test_lines_for_people_fit_and_break_no_word(command: tuple[str, ...], columns: int) -> None:
    wide, narrow = invoke(*command, columns=10_000)[1], invoke(*command, columns=columns)[1]
    assert narrow.split() == wide.split()
    if columns >= 80:
        long = [line for line in narrow.splitlines() if len(line) > columns]
        assert all(len(line.split()) <= 2 for line in long)  # one word that is longer than a line


def test_config_show_marks_what_differs_and_says_what_it_means() -> None:
    code, text, _ = invoke("config", "show", "toy", "steps=7", "optim.lr=3e-4")
    lines = text.splitlines()
    assert code == 0
    assert "* steps = 7  (default 1000)" in lines and "    Optimiser steps." in lines
    assert "  optim.lr = 0.0003  (default)" in lines and "* editor.path = toy:qwen-image-edit  (no default)" in lines
    assert "optim: AdamW." in lines and lines.index("run: One run.") > lines.index("optim: AdamW.")


def test_config_show_as_json_gives_the_config_back(tmp_path: Path) -> None:
    rows = json.loads(invoke("config", "show", "toy", "rewards.kept.kind=preservation", "--json")[1])
    assert {*rows[0]} == {"key", "value", "default", "required", "changed", "meaning"}
    tree: dict[str, object] = {}
    for row in rows:
        *sections, last = row["key"].split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})  # type: ignore[assignment]
        place[last] = row["value"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    same = load_config("toy", ["rewards.kept.kind=preservation"])
    assert dump_config(load_config(tmp_path / "run.yaml")) == dump_config(same)


def test_config_show_refuses_what_train_refuses_in_one_line() -> None:
    code, out, error = invoke("config", "show", "toy", "algorithm.kll=3")
    assert (code, out) == (2, "") and error.count("\n") == 1 and "did you mean algorithm.kl?" in error


def test_presets_are_listed_without_torch() -> None:
    code = """
import sys
from editr1.cli.main import app
app(["presets"], standalone_mode=False)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
