"""Our own preference file: what it may hold, and what is refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editr1.errors import UserError
from editr1.evaluation.agreement.layouts import read_pairs
from tests.evaluation.agreement.cases import grey

LINE = {"source": "s.png", "instruction": "Brighten.", "edit_a": "a.png", "edit_b": "b.png", "preference": "tie"}


def write(folder: Path, *lines: str) -> Path:
    for name, level in (("s", 1), ("a", 2), ("b", 3)):
        grey(level).save(folder / f"{name}.png")
    file = folder / "prefs.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_lines_are_read_and_pictures_opened_when_asked(tmp_path: Path) -> None:
    more = {**LINE, "preference": "b", "task": "style", "requirement": "bright", "annotator": "me", "seen_at": 3}
    file = write(tmp_path, json.dumps(LINE), "", json.dumps(more))
    first, second = read_pairs(file)
    assert (first.preference, first.task, second.preference, second.task) == ("tie", "edit", "b", "style")
    assert second.requirement == "bright" and first.key != second.key and first.group == second.group
    assert [opener().tobytes()[0] for opener in (first.source, first.edit_a, first.edit_b)] == [1, 2, 3]


def test_references_are_opened_in_their_order_for_the_judge(tmp_path: Path) -> None:
    several = {**LINE, "references": ["b.png", "a.png"]}
    plain, pair = read_pairs(write(tmp_path, json.dumps(LINE), json.dumps(several)))
    assert plain.sample().references == ()
    assert [picture.tobytes()[0] for picture in pair.sample().references] == [3, 2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (json.dumps({**LINE, "references": ["../a.png"]}), "outside"),
        ('{"source"', "not JSON"),
        ("[1]", "the line"),
        (json.dumps({**LINE, "preference": "left"}), "preference"),
        (json.dumps({key: value for key, value in LINE.items() if key != "edit_b"}), "edit_b"),
        (json.dumps({**LINE, "edit_a": "../a.png"}), "outside"),
        (json.dumps({**LINE, "edit_a": "none.png"}), "no picture"),
        (json.dumps({**LINE, "instruction": 3}), "instruction"),
    ],
)
def test_wrong_line_is_named_by_file_and_number(tmp_path: Path, line: str, words: str) -> None:
    file = write(tmp_path, json.dumps(LINE), line)
    with pytest.raises(UserError, match=words) as caught:
        read_pairs(file)
    assert f"{file}:2" in str(caught.value)


def test_wrong_first_line_empty_file_and_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prefs.jsonl:1: .*preference"):
        read_pairs(write(tmp_path, json.dumps({**LINE, "preference": None})))
    with pytest.raises(UserError, match="holds no pair"):
        read_pairs(write(tmp_path, ""))
    with pytest.raises(UserError, match="there is no"):
        read_pairs(tmp_path / "elsewhere")


def test_file_that_is_no_picture_is_named_when_opened(tmp_path: Path) -> None:
    (first,) = read_pairs(write(tmp_path, json.dumps(LINE)))
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(UserError, match=r"a\.png"):
        first.edit_a()
