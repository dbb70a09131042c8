"""Requirements and tasks that a dataset lacks, filled in by a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.data.samples import JsonlDataset
from editr1.errors import UserError
from editr1.recipe.asking import open_writer
from editr1.recipe.suggesting import fill, open_gaps
from editr1.toy.world import ToyDataset
from tests.recipe.scripted import ScriptedServer, make_known

LINES: tuple[dict[str, Any], ...] = (
    {"key": "whole", "task": "remove", "requirement": "It is gone."},
    {"key": "no-task", "requirement": "It is gone."},
    {"key": "no-requirement", "task": "remove"},
    {"key": "neither", "references": ["0.png"]},
)


class Suggesting(ScriptedServer):
    """Says of each item's instruction, which holds its number, something else."""

    def answer(self, parts: Sequence[str | Image]) -> str:
        question = str(parts[-1])
        if "Of which type" in question:
            return '{"task": "remove"}' if "number 1" in question else '{"task": "painting"}'
        return '```json\n{"requirement": "The thing is gone."}\n```'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four items, of which three lack something."""
    data = tmp_path / "data"
    data.mkdir()
    items = ToyDataset("rl", 4)
    lines = []
    for number, line in enumerate(LINES):
        items[number].source.save(data / f"{number}.png")
        lines.append({"source": f"{number}.png", "instruction": f"Remove number {number}.", **line})
    (data / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return data


def serve(**options: object) -> Suggesting:
    return Suggesting([make_known(ToyDataset("rl", 1).item(0).scene, None)], **options)  # type: ignore[arg-type]


def test_gaps_are_filled_in_and_all_else_is_as_it_was(folder: Path) -> None:
    before = (folder / "data.jsonl").read_bytes()
    with serve() as server:
        result = CliRunner().invoke(app, ["data", "suggest", str(folder), "--model", server.model])
    assert result.exit_code == 0, result.output
    out = folder / "data.suggested.jsonl"
    old, new = ([json.loads(line) for line in file.read_text().splitlines()] for file in (folder / "data.jsonl", out))
    assert new[0] == old[0]
    assert new[1] == {**old[1], "task": "remove"}
    assert new[2] == {**old[2], "requirement": "The thing is gone."}
    assert new[3] == {**old[3], "requirement": "The thing is gone."}, "an unknown task is not taken"
    assert "1 rejected: task: unknown task" in result.output
    assert (folder / "data.jsonl").read_bytes() == before
    assert sorted(path.name for path in folder.glob("*.jsonl*")) == ["data.jsonl", "data.suggested.jsonl"]
    (folder / "data.jsonl").write_bytes(out.read_bytes())
    assert [line.requirement != "" for line in JsonlDataset(folder).lines] == [True] * 4


def test_stored_edits_stay_in_their_lines(folder: Path) -> None:
    lines = [json.loads(line) | {"target": "1.png"} for line in (folder / "data.jsonl").read_text().splitlines()]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serve() as server:
        fill(open_gaps(folder, folder / "new.jsonl"), open_writer(server.model))
    new = [json.loads(line) for line in (folder / "new.jsonl").read_text().splitlines()]
    assert [line["target"] for line in new] == ["1.png"] * 4 and new[2] != lines[2]


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "there.jsonl").write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        open_gaps(folder, folder / "there.jsonl")
    assert (folder / "there.jsonl").read_text() == "mine"


def test_without_gaps_there_is_nothing_to_do(folder: Path) -> None:
    lines = (folder / "data.jsonl").read_text().splitlines()
    (folder / "data.jsonl").write_text(lines[0] + "\n")
    with pytest.raises(UserError, match="every item has a requirement and a task"):
        open_gaps(folder, folder / "new.jsonl")


def test_items_without_an_answer_are_asked_about_again_and_the_others_are_not(folder: Path) -> None:
    out = folder / "new.jsonl"
    with serve(refuses=lambda place: place == 1) as server:
        with pytest.raises(UserError, match="1 of 3 items have no answer"):
            fill(open_gaps(folder, out), open_writer(server.model))
        assert not out.exists() and server.chats == 4
        counts = fill(open_gaps(folder, out), open_writer(server.model))
    assert server.chats <= 4 + 2
    assert counts == {"requirement": 2, "task": 1, "rejected: task: unknown task": 1}
    assert len(out.read_text().splitlines()) == 4
