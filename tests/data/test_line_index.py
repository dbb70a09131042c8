"""Lines of a file by their places: the same as those that are read one after another, whatever ends them."""

from __future__ import annotations

import gc
import hashlib
import os
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from editr1.data import line_index
from editr1.data.line_index import LineIndex
from editr1.errors import UserError

PARTS = [b"\n", b"\r", b"\r\n", b" ", b"a", b"{}", "é\u2028".encode(), b"\xff", b"\xef\xbb\xbf", b"\xc2\xa0", b"\t\x0c"]


def by_reading(file: Path) -> list[tuple[int, str]]:
    """Number and text of each line that is not empty, as Python's text files have them."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        return [(number, line.rstrip("\n")) for number, line in enumerate(stream, start=1) if line.strip()]


def by_index(index: LineIndex) -> list[tuple[int, str]]:
    raws = [index.line(place) or b"" for place in range(len(index))]
    assert raws == [*index.lines()]
    texts = [raw.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r") for raw in raws]
    return [*zip(index.numbers.tolist(), texts, strict=True)]


@given(st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join), st.integers(1, 5))
@example(b"", 1)
@example(b"\xef\xbb\xbf", 3)
@example(b"a\r\nb\r\n", 2)
@example(b"\xef\xbb\xbf\n a\r\rb", 4)
def test_lines_are_those_that_are_read_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, piece: int
) -> None:
    file = tmp_path_factory.mktemp("index") / "data.jsonl"
    file.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_index, "PIECE", piece)
        patch.setattr(line_index, "BLOCK", 2)
        index = LineIndex(file)
        assert by_index(index) == by_reading(file)
    assert index.sha256 == hashlib.sha256(content).hexdigest()


def test_a_hundred_thousand_lines_of_all_lengths_cross_pieces(tmp_path: Path) -> None:
    rng, file = random.Random(0), tmp_path / "data.jsonl"
    file.write_bytes(b"".join(b"x" * rng.randrange(200) + b"\n" for _ in range(100_000)))
    assert file.stat().st_size > line_index.PIECE
    assert by_index(LineIndex(file)) == by_reading(file)


def test_a_line_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"a\n" + b"x" * (4 * 2**20 + 1) + b"\nb")
    assert [LineIndex(file).line(place) for place in range(3)] == [b"a\n", None, b"b"]
    assert [*LineIndex(file).lines()] == [b"a\n", None, b"b"]


def test_a_file_that_is_replaced_touched_or_longer_is_read_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("one\ntwo\n")
    index = LineIndex(file)
    with file.open("a") as more:
        more.write("three\n")
    os.utime(file, (1, 1))
    assert [index.line(0), index.line(1), len(index)] == [b"one\n", b"two\n", 2]
    (tmp_path / "other").write_text("another\n")
    (tmp_path / "other").replace(file)
    assert [*index.lines()] == [b"one\n", b"two\n"]


@pytest.mark.parametrize("change", ["one\nTWO\n", "one\n", ""])
def test_a_file_whose_bytes_change_is_refused_from_then_on(tmp_path: Path, change: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("one\ntwo\n")
    index = LineIndex(file)
    os.utime(file, (1, 1))
    assert index.line(1) == b"two\n"
    file.write_text(change)
    os.utime(file, (2, 2))
    for _ in range(2):
        with pytest.raises(UserError, match=r"data\.jsonl has changed since this run read it; .*data\.changed=true"):
            index.line(1)


def test_the_file_is_closed_with_its_index(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("one\n")
    index = LineIndex(tmp_path / "data.jsonl")
    handle = index._handle
    del index
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_one_line(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "data.jsonl"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    with pytest.raises(UserError, match=r"cannot read the dataset .*data\.jsonl"):
        LineIndex(file)
