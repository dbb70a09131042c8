"""The tutorial and the how-to of an own reward, followed word by word in an empty folder."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.files import read_lines
from tests.documents import COMMANDS, Block, blocks, name_of

QUICK = {
    "steps: 20": "steps: 1",
    "split: 8, edits: 4": "split: 2, edits: 1",
    "groups_per_step: 8": "groups_per_step: 1",
}
"""What the quick try of the tutorial changes, so that it takes seconds."""


def follow(guide: list[Block], folder: Path, script: str, changes: dict[str, str]) -> list[str]:
    """Write the files that a guide shows, run its commands in their order, and return what they print."""
    said = []
    for block in guide:
        if block.language == "python":
            (folder / script).write_text(block.text)
        elif block.language == "yaml":
            name, text = name_of(block.text), block.text
            for words, others in changes.items():
                assert words in text
                text = text.replace(words, others)
            assert name is not None
            (folder / name).write_text(text)
        elif block.language in COMMANDS:
            said += [run(words) for words in block.commands if words[0] in ("editr1", "python")]
    return said


def run(words: list[str]) -> str:
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
        return ""
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, (words, result.output)
    return result.output


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def check(here: Path, steps: int, held_out: int) -> None:
    """What the tutorial says that there is in the end."""
    guide = blocks("docs/tutorial.md")
    (line,) = (block.text for block in guide if block.language == "json")
    assert json.loads(line) in read_lines(here / "edits/data.jsonl")
    assert len([*(here / "edits/pictures").iterdir()]) == len(read_lines(here / "edits/data.jsonl")) == 40
    assert [row["step"] for row in read_lines(here / "runs/first/metrics.jsonl")] == [*range(1, steps + 1)]
    assert "items" in (here / "runs/first/report.html").read_text(encoding="utf-8")
    results = json.loads((here / "runs/first/results.json").read_text())
    assert results["items"] == held_out
    assert Image.open(here / "shrunk.png").size == (64, 64)
    with safe_open(here / "lora/lora_comfyui.safetensors", "pt") as weights:
        assert {name.partition(".")[0] for name in weights.keys()} == {"diffusion_model"}  # noqa: SIM118


@pytest.mark.long
def test_the_tutorial_leads_to_a_lora_a_report_and_a_file_for_comfyui(here: Path) -> None:
    follow(blocks("docs/tutorial.md"), here, "draw.py", QUICK)
    check(here, steps=1, held_out=2)


@pytest.mark.slow
def test_the_tutorial_as_it_is(here: Path) -> None:
    follow(blocks("docs/tutorial.md"), here, "draw.py", {})
    check(here, steps=20, held_out=8)


def test_the_own_reward_of_the_how_to_is_called_and_gives_what_it_says(here: Path) -> None:
    (said,) = follow(blocks("docs/howto/own_reward.md"), here, "my_rewards.py", {})
    assert "rewards.sharp  function, weight 0.5" in " ".join(said.split("\n")).replace("   ", "  ")
    sharpness = runpy.run_path("my_rewards.py")["sharpness"]
    grey = Image.new("RGB", (16, 16), "grey")
    lines = Image.frombytes("L", (16, 16), bytes([0, 255] * 128)).convert("RGB")
    assert sharpness(lines, lines, "", "", "add") == 1.0 and sharpness(lines, grey, "", "", "add") == 0.0
    assert sharpness(lines, lines, "", "", "background") is None
