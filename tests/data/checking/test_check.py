"""`DataCheck` finds every planted fault at its line, and none where there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.data.checking.check import DataCheck, heldout_sources
from editr1.data.samples import JsonlDataset
from editr1.errors import UserError
from tests.data.checking.planted import GOOD, export_toy, no_picture, picture, plant, write_lines
from tests.training.stored import write_preferences


def test_25_planted_faults_are_found_at_their_lines_and_nothing_else(tmp_path: Path) -> None:
    planted = plant(tmp_path / "data")
    assert len(planted) == 25
    found = [(fault.line, fault.kind) for fault in DataCheck(tmp_path / "data").run()]
    assert sorted(found) == planted


def test_a_line_with_several_faults_has_all_of_them(tmp_path: Path) -> None:
    folder = export_toy(tmp_path / "data", 1)
    wrong = {"source": "a.png", "references": ["../b.png", "c.png"], "instruction": "Make it red."}
    write_lines(folder, [wrong, {"source": "0.png", "requirement": "\0", "instruction": "", "colour": "red"}])
    found = [(fault.line, fault.kind) for fault in DataCheck(folder).run()]
    assert found == [(1, "missing"), (1, "outside"), (1, "missing"), (2, "empty"), (2, "characters"), (2, "form")]


def test_the_toy_has_no_fault_and_its_counts_are_those_of_its_lines(tmp_path: Path) -> None:
    check = DataCheck(export_toy(tmp_path / "data", 90))
    assert [*check.run()] == []
    counts = check.counts
    assert (counts.items, counts.without_requirement, counts.scripts) == (90, 0, {"Latin": 90})
    assert counts.tasks == dict.fromkeys(counts.tasks, 10) and len(counts.tasks) == 9
    assert counts.notes() == []
    assert counts.summary()[-1] == "no faults"


def test_what_the_check_refuses_training_refuses_in_the_same_words(tmp_path: Path) -> None:
    folder, faults = tmp_path / "data", list[str]()
    plant(folder)
    JsonlDataset(folder, faults=faults)
    told = {f"{folder / 'data.jsonl'}:{fault.line}: {fault.message}" for fault in DataCheck(folder).run()}
    repeated = [fault for fault in faults if "has the key" in fault]  # there, the key is named
    assert len(repeated) == 1 and {*faults} - {*repeated} <= told
    assert len(faults) == 18  # all but those of the pictures' content and of comparison


def test_stored_edits_are_looked_at_and_two_votes_on_one_source_are_no_duplicate(tmp_path: Path) -> None:
    folder = write_preferences(tmp_path / "votes")
    lines = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    again = {**lines[0], "chosen": "1-chosen.png", "key": "another vote"}
    write_lines(folder, [*lines, again, {**lines[4], "key": "once more"}])
    (folder / "2-rejected.png").unlink()
    no_picture(folder / "3-chosen.png")
    found = [(fault.line, fault.kind) for fault in DataCheck(folder).run()]
    assert found == [(3, "missing"), (4, "broken"), (7, "duplicate")]
    (folder / "data.jsonl").write_text(json.dumps({**lines[0], "target": "0-chosen.png"}) + "\n")
    said = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert said.exit_code == 2 and "leave one kind out" in said.output


def test_a_held_out_picture_is_found_under_another_name(tmp_path: Path) -> None:
    training, heldout = export_toy(tmp_path / "data", 5), export_toy(tmp_path / "heldout", 3, seed=9)
    (heldout / "1.png").write_bytes((training / "4.png").read_bytes())
    key = JsonlDataset(heldout).lines[1].key
    (fault,) = DataCheck(training, heldout=heldout_sources(JsonlDataset(heldout))).run()
    assert (fault.line, fault.kind) == (5, "held-out") and repr(key) in fault.message


def test_the_editors_limit_is_asked_for_every_instruction_in_batches(tmp_path: Path) -> None:
    folder = export_toy(tmp_path / "data", 1)
    write_lines(folder, [{"source": "0.png", "instruction": f"Make {number} red."} for number in range(2500)])
    batches: list[int] = []

    def long_texts(texts: Mapping[str, str]) -> dict[str, str]:
        batches.append(len(texts))
        return {key: "it is too long" for key, text in texts.items() if text.startswith("Make 1234 ")}

    (fault,) = DataCheck(folder, long_texts=long_texts).run()
    assert (fault.line, fault.kind, fault.message) == (1235, "long", "instruction: it is too long")
    assert batches == [1000, 1000, 500]


def test_rare_and_common_tasks_and_mixed_scripts_are_notes_and_no_faults(tmp_path: Path) -> None:
    folder = export_toy(tmp_path / "data", 1)
    texts = [f"Make {i} red." if i % 3 else f"把{i}变成红色" for i in range(100)]
    tasks = ["rare"] + 30 * ["some"] + 69 * ["most"]
    lines = [{"source": "0.png", "instruction": text, "task": task} for text, task in zip(texts, tasks, strict=True)]
    write_lines(folder, lines)
    check = DataCheck(folder)
    assert [*check.run()] == []
    assert check.counts.notes() == [
        "task 'most' has 69.0% of the items: most of what is learnt",
        "task 'rare' has 1.0% of the items: few to learn from",
        "instructions are in several scripts: Latin 66, CJK 34",
    ]


def test_nothing_to_check_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the dataset .*data\.jsonl"):
        [*DataCheck(tmp_path).run()]
    (tmp_path / "data.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="holds no item"):
        [*DataCheck(tmp_path).run()]


def test_the_command_prints_lines_or_json_and_its_exit_code_tells(tmp_path: Path) -> None:
    planted = plant(tmp_path / "data")
    run = CliRunner().invoke
    told = run(app, ["data", "check", str(tmp_path / "data")])
    lines = told.output.splitlines()
    assert told.exit_code == 1
    assert sorted(int(line.split()[1].rstrip(":")) for line in lines if line.startswith("line ")) == [
        number for number, _ in planted
    ]
    assert lines[-1].startswith("25 faults: json 4, form 4, missing 3, ")
    as_json = run(app, ["data", "check", str(tmp_path / "data"), "--json"])
    result = json.loads(as_json.output)
    assert as_json.exit_code == 1
    assert sorted((fault["line"], fault["kind"]) for fault in result["faults"]) == planted
    assert sum(result["kinds"].values()) == 25 and result["items"] == GOOD + 13
    clean = run(app, ["data", "check", str(export_toy(tmp_path / "toy", 9)), "--json"])
    assert clean.exit_code == 0 and json.loads(clean.output)["faults"] == []
    none = run(app, ["data", "check", str(tmp_path / "none")])
    assert none.exit_code == 2 and "has no data.jsonl; write one, or make one of parquet files" in none.stderr


def test_the_command_knows_the_tokens_of_an_editor_and_held_out_data(tmp_path: Path) -> None:
    folder, heldout = export_toy(tmp_path / "data", 2), export_toy(tmp_path / "heldout", 2)
    lines = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    lines.append({"source": "new.png", "instruction": 740 * "red "})
    picture(folder / "new.png")
    write_lines(folder, lines)
    arguments = ["data", "check", str(folder), "--json", "--heldout", str(heldout), "--editor", "toy:flux-kontext"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    found = [(fault["line"], fault["kind"]) for fault in json.loads(result.stdout)["faults"]]
    assert found == [(1, "held-out"), (2, "held-out"), (3, "long")]
