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
        "a key twice": LINE.replace(b'"instruction"', b'"instruction": "stop", "instruction"'),
        "a key twice, once escaped": LINE.replace(b'"instruction"', b'"instr\\u0075ction": "stop", "instruction"'),
        "an infinity": LINE.replace(b'"go"', b"-Infinity"),
        "a number beyond floats": LINE.replace(b'"go"', b"1e400"),
        "half of a character": LINE.replace(b"go", b"g\\ud83d"),
        "half of a character in a key": LINE.replace(b'"go"', b'"go", "key": "\\udc00"'),
        "a NUL in an instruction": LINE.replace(b"go", b"g\\u0000o"),
        "an instruction that ends in a NUL": LINE.replace(b"go", b"go\\u0000"),
    }.items()
)


VOTE = {"source": "a.png", "instruction": "go", "edit_a": "a.png", "edit_b": "a.png", "preference": "a"}
ROW = {"key": "k/0", "preference": "a", "runs": "runs"}
BROKEN = {
    "a key twice": b'"key": "k/0", "key": "k/1"',
    "another key twice": b'"x": 1, "x": 1',
    "a key twice inside": b'"x": {"y": 1, "y": 2}',
    "NaN": b'"x": NaN',
    "Infinity": b'"x": Infinity',
    "1e400": b'"x": 1e400',
    "5,000 digits": b'"x": ' + 5000 * b"9",
    "4,000 digits": b'"x": ' + 4000 * b"9",
    "deep nesting": b'"x": ' + 100_000 * b"[",
    "deep nesting that ends": b'"x": ' + 500 * b'{"x":' + b"1" + 500 * b"}",
    "a NUL": b'"x": "\0"',
    "half of a character": b'"x": "\\ud800"',
    "bytes that are no text": b'"x": "\xff"',
}


def write_lines(name: str, value: dict[str, str], more: bytes, folder: Path) -> Path:
    """A whole line, and one with more in its object."""
    picture(folder)
    line = json.dumps(value).encode()
    (folder / name).write_bytes(line + b"\n" + line[:-1] + b", " + more + b"}\n")
    return folder / name


def named(file: Path, more: bytes, error: UserError) -> None:
    assert str(error).startswith((f"{file}:2: ", "cannot read ")), error
    assert b"twice" not in more or "twice" in str(error), error


def pairs_with(more: bytes, folder: Path) -> None:
    file = write_lines("pairs.jsonl", VOTE, more, folder)
    try:
        read_pairs(file)
    except UserError as error:
        named(file, more, error)
        raise


def votes_with(more: bytes, folder: Path) -> None:
    file = write_lines("votes.jsonl", VOTE | ROW, more, folder)
    try:
        Votes(file, "runs")
    except UserError as error:
        named(file, more, error)
        raise


def published_with(more: bytes, folder: Path) -> None:
    """A JSON list in the layout of GenAI-Bench."""
    picture(folder)
    pair = {"instruct_prompt": "go", "vote_type": "tievote"} | dict.fromkeys(
        ("source_image", "left_output_image", "right_output_image"), "a.png"
    )
    line = json.dumps(pair).encode()
    (folder / "pairs.json").write_bytes(b"[" + line + b", " + line[:-1] + b", " + more + b"}]")
    read_pairs(folder / "pairs.json")


CASES += tuple(
    Case(f"{act.__name__} {name.replace('twice', '2x')}", partial(act, more))
    for act in (pairs_with, votes_with, published_with)
    for name, more in BROKEN.items()
    if not (act is pairs_with and name == "a key twice")
)


def repeated_keys(faults: list[str] | None, folder: Path) -> None:
    """One line about 100,000 lines, and not a look at a picture for each of them."""
    picture(folder)
    (folder / "data.jsonl").write_text(100_000 * (json.dumps(item("go") | {"key": "k"}) + "\n"))
    JsonlDataset(folder, faults=faults)
    assert faults and len(faults) == 1
    raise UserError(faults[0])


CASES += (
    Case("100,000 lines with one key", partial(repeated_keys, None), seconds=10),
    Case("100,000 lines with one key, checked", partial(repeated_keys, []), seconds=30),
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
