"""Keys that would share a file, leave the folder, or be no file name."""

from __future__ import annotations

import json
import string
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.evaluation.agreement.pairs import read_jsonl
from editr1.evaluation.arena.votes import Votes, read_duels, runs_id
from editr1.evaluation.benchmarks.imgedit import ImgEdit
from editr1.evaluation.heldout.rows import EditRow, RowStore, image_name, open_image, read_rows
from editr1.files import file_name
from tests.hostile.harness import Case, Judged

PAIRS = (
    ("a/b", "a-b"),
    ("a/b", "a+b"),
    ("a", "A"),
    ("a b", "a-b"),
    ("ä", "ö"),
    ("ß", "ss"),
    ("K", "k"),  # the sign of the kelvin is a k in lower case
    ("x" * 300, "x" * 301),
    ("猫" * 300, "猫" * 299),
    (".", ".."),
    ("a", "a\n"),
    ("a", "a\0"),
    ("a", " a"),
    ("é", "e\u0301"),
    ("../a", "a"),
    ("con", "con."),
    ("a_0", "a"),
    ("toy/a/1", "toy-a-1"),
    ("a~1", "a"),
    ("", "key"),
)


def evaluation(folder: Path, keys: tuple[str, ...], tone: int) -> Path:
    """An evaluation whose edit of the n-th key is of the colour (tone, n, 0), and its source (0, n, 0)."""
    store = RowStore(folder, {"weights": "base"})
    for number, key in enumerate(keys):
        store.save_image(key, "source", Image.new("RGB", (8, 8), (0, number, 0)))
        name = store.save_image(key, 0, Image.new("RGB", (8, 8), (tone, number, 0)))
        store.add([EditRow(key, "add", 0, f"Add {number}.", None, None, {}, name)])
    return folder


def keep_apart(keys: tuple[str, str], folder: Path) -> None:
    """Rows, votes and pairs show each key's own pictures."""
    runs = evaluation(folder / "a", keys, 100), evaluation(folder / "b", keys, 200)
    rows = {row.key: row for row in read_rows(runs[0])}
    for number, key in enumerate(keys):
        assert open_image(runs[0], rows[key].image).getpixel((0, 0)) == (100, number, 0)
        assert open_image(runs[0], rows[key].source).getpixel((0, 0)) == (0, number, 0)
    votes = Votes(folder / "votes.jsonl", runs_id(*runs))
    for duel in read_duels(*runs):
        votes.add(duel, "a")
    pairs = read_jsonl(folder / "votes.jsonl")
    assert len(pairs) == 2
    for pair in pairs:
        number = int(pair.instruction[4:-1])
        colours = [opener().getpixel((0, 0)) for opener in (pair.source, pair.edit_a, pair.edit_b)]
        assert colours == [(0, number, 0), (100, number, 0), (200, number, 0)]


def votes_of_other_runs(folder: Path) -> None:
    """Pictures that an earlier file of votes left are not taken for those of these runs."""
    first = evaluation(folder / "a", ("k",), 100), evaluation(folder / "b", ("k",), 200)
    second = evaluation(folder / "c", ("k",), 50), evaluation(folder / "d", ("k",), 60)
    for runs in (first, second):
        (folder / "votes.jsonl").unlink(missing_ok=True)
        Votes(folder / "votes.jsonl", runs_id(*runs)).add(read_duels(*runs)[0], "a")
    (pair,) = read_jsonl(folder / "votes.jsonl")
    assert [opener().getpixel((0, 0)) for opener in (pair.edit_a, pair.edit_b)] == [(50, 0, 0), (60, 0, 0)]


def folder_of_an_older_version(folder: Path) -> None:
    """Rows name their pictures, and the source's name follows from theirs."""
    evaluation(folder, ("toy/a/1",), 100)
    for name in ("0", "source"):
        (folder / f"toy+a+1_{name}.png").rename(folder / f"toy-a-1_{name}.png")
    rows = (folder / "rows.jsonl").read_text().replace("toy+a+1_0", "toy-a-1_0")
    (folder / "rows.jsonl").write_text(rows)
    (row,) = read_rows(folder)
    assert open_image(folder, row.source).getpixel((0, 0)) == (0, 0, 0)
    assert open_image(folder, row.image).getpixel((0, 0)) == (100, 0, 0)


def rows_with(field: str, value: object, folder: Path) -> None:
    head, line = (evaluation(folder, ("k",), 1) / "rows.jsonl").read_text().splitlines()
    (folder / "rows.jsonl").write_text(f"{head}\n{json.dumps({**json.loads(line), field: value})}\n")
    for row in read_rows(folder):
        open_image(folder, row.image)


def imgedit_with(text: str, folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    entry = json.dumps({"id": "a.png", "prompt": "go", "edit_type": "add"})
    (folder / "basic_edit.json").write_text(text.replace("ENTRY", entry))
    ImgEdit(folder)


CASES = (
    Case("ImgEdit, one item", partial(imgedit_with, '{"a": ENTRY}'), "clean"),
    *(
        Case(f"ImgEdit: {name}", partial(imgedit_with, text))
        for name, text in {
            "a key twice": '{"a": ENTRY, "a": ENTRY}',
            "two cases": '{"a": ENTRY, "A": ENTRY}',
            "a long key": '{"' + "a" * 300 + '": ENTRY}',
            "a path": '{"a/b": ENTRY}',
            "no entry": '{"a": NaN}',
            "nested": '{"a": ' + 200 * "[" + 200 * "]" + "}",
        }.items()
    ),
    *(Case(f"{one[:9]!r} and {other[:9]!r}", partial(keep_apart, (one, other)), "clean") for one, other in PAIRS),
    Case("votes of other runs", votes_of_other_runs, "clean"),
    Case("a folder of an older version", folder_of_an_older_version, "clean"),
    *(
        Case(f"a row with {field} {value!r}", partial(rows_with, field, value))
        for field, value in (
            ("image", None),
            ("image", 3),
            ("image", "../a.png"),
            ("image", "/etc/passwd"),
            ("image", "a\0"),
            ("image", "x" * 5000),
            ("key", []),
            ("key", None),
            ("seed", -1),
            ("seed", "0"),
            ("judge", 1e300),
            ("judge", "1"),
            ("judge", True),
            ("oracle", {"done": 1}),
            ("oracle", {"score": 1e300}),
            ("oracle", []),
            ("mine", 1),
        )
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_key_gets_the_picture_of_another(case: Case, judged: Judged) -> None:
    judged(case)


KEYS = st.text() | st.text(alphabet=string.ascii_letters + string.digits + "._-/~+ \n\0", max_size=6)


@given(KEYS, KEYS)
@example("a/b", "a-b")
@example("A", "a")
@settings(max_examples=2000, deadline=None)
def test_two_keys_never_share_a_name(one: str, other: str) -> None:
    names = {file_name(key).casefold() for key in (one, other)}
    assert len(names) == len({one, other})


@given(st.text(max_size=400), st.sampled_from([0, 3, "source"]))
@example("", 0)
@example(".", 0)
@example("../..", 0)
@example("a\0b\n", 0)
@example("\ud800", 0)
@settings(max_examples=1000, deadline=None)
def test_every_name_is_one_of_a_file_here(key: str, which: int | str) -> None:
    name = image_name(key, which)
    assert len(name.encode()) < 200 and name.isascii() and name.isprintable()
    assert not {*name} & {*'/\\:*?"<>| '} and name[0] not in ".~-"


@given(st.text(alphabet="ab_0", min_size=1, max_size=5), st.text(alphabet="ab_0", min_size=1, max_size=5))
def test_two_edits_never_share_a_name(one: str, other: str) -> None:
    places = {(key, which) for key in (one, other) for which in (0, 1, 10, "source")}
    assert len({image_name(*place) for place in places}) == len(places)
