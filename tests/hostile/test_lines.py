"""Lines of JSON that users, editors of text and other programs write: read as meant, or refused with file and line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.data.samples import JsonlDataset
from editr1.errors import UserError
from editr1.evaluation.agreement.layouts import read_pairs
from editr1.evaluation.agreement.pairs import read_jsonl
from editr1.evaluation.arena.votes import Duel, Votes
from tests.hostile.harness import Case, Judged

ENDS = {
    "U+2028": "\u2028",
    "U+2029": "\u2029",
    "U+0085": "\x85",
    "form feed": "\x0c",
    "vertical tab": "\x0b",
    "file separator": "\x1c",
}
"""Where `str.splitlines` ends a line, besides at newlines."""


def picture(folder: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")


def item(instruction: str) -> dict[str, str]:
    return {"source": "a.png", "instruction": instruction}


def read_item(end: str, folder: Path) -> None:
    picture(folder)
    lines = [json.dumps(item(f"one{end}two"), ensure_ascii=end < " "), json.dumps(item("three"))]
    (folder / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    dataset = JsonlDataset(folder)
    assert [line.instruction for line in dataset.lines] == [f"one{end}two", "three"]
    assert [dataset[i].key for i in range(2)] == ["line-1", "line-2"]


def vote_and_agree(end: str, folder: Path) -> None:
    """The arena's file is what `judge agree` and the arena itself read."""
    picture(folder)
    file, words = folder / "a.png", f"one{end}two"
    votes = Votes(folder / "votes.jsonl", "runs")
    votes.add(Duel("item/0", words, "add", file, file, file, False), "a")
    votes.add(Duel("item/1", "three", "add", file, file, file, False), "b")
    for read in (read_jsonl, read_pairs):
        assert [(pair.instruction, pair.preference) for pair in read(folder / "votes.jsonl")] == [
            (words, "a"),
            ("three", "b"),
        ]
    assert len(Votes(folder / "votes.jsonl", "runs").lines) == 2


def written(content: bytes, count: int, folder: Path) -> None:
    picture(folder)
    (folder / "data.jsonl").write_bytes(content)
    assert len(JsonlDataset(folder)) == count


def refused(content: bytes, folder: Path) -> None:
    try:
        written(content, 1, folder)
    except UserError as error:
        assert str(error).startswith(("cannot read the dataset", f"{folder / 'data.jsonl'}:1: ")), error
        raise


LINE = json.dumps(item("go")).encode()
CASES = tuple(
    Case(f"{act.__name__}: {name}", partial(act, end), "clean")
    for name, end in ENDS.items()
    for act in (read_item, vote_and_agree)
)
CASES += tuple(
    Case(name, partial(written, content, count), "clean")
    for name, (content, count) in {
        "a byte order mark": (b"\xef\xbb\xbf" + LINE, 1),
        "lines of Windows": (LINE + b"\r\n" + LINE + b"\r\n", 2),
        "lines of an old Macintosh": (LINE + b"\r" + LINE, 2),
        "empty lines": (b"\n\n" + LINE + b"\n \n\t\n", 1),
    }.items()
)
CASES += tuple(
    Case(name, partial(refused, content))
    for name, content in {
        "UTF-16": LINE.decode().encode("utf-16"),
        "bytes that are no text": b"\xff" + LINE,
        "a raw control character": LINE.replace(b"go", b"g\x01o"),
        "a NUL": b"\0" + LINE,
        "two values on a line": LINE + b" " + LINE,
        "a mark in the middle": b" \xef\xbb\xbf" + LINE,
        "a list": b"[" + LINE + b"]",
        "a long number": b'{"key": ' + 5000 * b"9" + b"}",
        "deep nesting": 100000 * b"[",
        "deep nesting that ends": 5000 * b"[" + 5000 * b"]",
        "a NaN": LINE.replace(b'"go"', b"NaN"),
        "a number as text": LINE.replace(b'"go"', b"3"),
        "a path with a NUL": LINE.replace(b"a.png", b"a\\u0000.png"),
        "a path that is too long": LINE.replace(b"a.png", 5000 * b"a" + b".png"),
        "a path outside": LINE.replace(b"a.png", b"../a.png"),
        "a folder": LINE.replace(b"a.png", b"."),
    }.items()
)


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists) | st.dictionaries(st.text(), st.text())
)
@example(value={"\n": ""})
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_an_item_or_one_line(tmp_path: Path, value: object) -> None:
    picture(tmp_path)
    for line in (value, item("go") | value if isinstance(value, dict) else item("go") | {"instruction": value}):
        (tmp_path / "data.jsonl").write_text(json.dumps(line), encoding="utf-8")
        try:
            assert JsonlDataset(tmp_path)[0].source.size == (8, 8)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_line_breaks_it(case: Case, judged: Judged) -> None:
    judged(case)
