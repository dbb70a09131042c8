"""A long data.jsonl: item for item the same as one that is read at once, and nothing of a line stays in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1.data.forms import open_stored
from editr1.data.holdout import hold_out, read_items
from editr1.data.long import LongDataset, sample_of
from editr1.data.samples import JsonlDataset, StoredDataset
from editr1.errors import UserError

LINES, PICTURES, MOST = 200, 7, 20


def item(number: int, **more: Any) -> dict[str, Any]:
    picture = f"{number % PICTURES}.png"
    return {"source": picture, "instruction": f"make {number} red", "task": ("add", "remove")[number % 2], **more}


def write(folder: Path, lines: dict[int, Any] | None = None, count: int = LINES) -> Path:
    """`count` items, of which `lines` are others; a text is a line as it is."""
    for number in range(PICTURES):
        Image.new("RGB", (8, 8 + number), (30 * number, 0, 0)).save(folder / f"{number}.png")
    made = [(lines or {}).get(number, item(number)) for number in range(1, count + 1)]
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in made)
    (folder / "data.jsonl").write_text(text + "\n", encoding="utf-8")
    return folder


def open_long(folder: Path, faults: list[str] | None = None, most: int = MOST) -> LongDataset:
    dataset = open_stored(folder, faults=faults, most=most)
    assert isinstance(dataset, LongDataset)
    return dataset


def outside_of_sample() -> int:
    """Number of a line in the middle that is not checked first."""
    return next(number for number in range(100, LINES) if number - 1 not in sample_of(LINES, MOST))


def test_a_file_is_long_only_if_it_has_more_lines_than_are_checked(tmp_path: Path) -> None:
    write(tmp_path, {3: ""})  # an empty line is no item
    assert isinstance(open_stored(tmp_path, most=LINES - 2), LongDataset)
    assert isinstance(open_stored(tmp_path, most=LINES - 1), JsonlDataset)
    assert isinstance(open_stored(tmp_path), JsonlDataset)


def test_items_are_those_of_a_dataset_that_is_read_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path, {5: "", 9: item(9, references=["2.png", "3.png"], key="nine", requirement="r")})
    long, whole = open_long(folder), JsonlDataset(folder)
    assert len(long) == len(whole) == LINES - 1
    assert [*long.items] == whole.items
    assert long.items[4:8] == whole.items[4:8]
    for place in (0, 7, LINES - 2):
        ours, theirs = long[place], whole[place]
        assert (ours.key, ours.instruction, ours.task) == (theirs.key, theirs.instruction, theirs.task)
        assert np.array_equal(np.asarray(ours.source), np.asarray(theirs.source))
    assert long.checksum() == open_long(folder).checksum()


def test_the_released_layout_is_long_too(tmp_path: Path) -> None:
    write(tmp_path)
    lines = [json.dumps({"image": f"{n % PICTURES}.png", "prompt": f"p{n}", "id": n}) for n in range(50)]
    (tmp_path / "data.jsonl").unlink()
    (tmp_path / "train_metadata.jsonl").write_text("\n".join(lines))
    long, whole = open_long(tmp_path), JsonlDataset(tmp_path)
    assert [*long.items] == whole.items
    assert len({*long.sources.tolist()}) == PICTURES


@pytest.mark.parametrize("amount", [1, 30, 0.25, 0.5])
def test_the_same_items_are_held_out_as_of_a_dataset_that_is_read_at_once(tmp_path: Path, amount: float) -> None:
    (tmp_path / "link.png").symlink_to("3.png")
    others = {8: item(8, origin="0.png"), 20: item(20, source="link.png"), 21: item(21, source="./1.png")}
    folder = write(tmp_path, others)
    parts = [hold_out(data, data.sources, amount) for data in (open_long(folder), JsonlDataset(folder))]
    assert [list(part.indices) for part in parts[0]] == [list(part.indices) for part in parts[1]]


def test_the_sample_follows_from_the_number_of_lines_and_misses_no_part_of_the_file() -> None:
    places = sample_of(100_000, 1000)
    assert places == sorted({*places}) == sample_of(100_000, 1000) and len(places) == 1000
    assert max(np.diff([0, *places, 100_000])) < 2000
    assert {place % 100 for place in places} == {*range(100)}  # of data with a period too
    assert sample_of(5, 9) == [0, 1, 2, 3, 4]


FAULTS: dict[str, tuple[Any, str]] = {
    "no JSON": ('{"source": "1.png"', "not JSON"),
    "half a line": ('1.png", "instruction": "go"}', "not JSON"),
    "no instruction": ({"source": "1.png"}, "instruction: Field required"),
    "an empty instruction": (item(1, instruction=" "), "instruction: it is empty"),
    "no picture": (item(1, source="gone.png"), "there is no picture 'gone.png'"),
    "a picture outside": (item(1, source="../a.png"), "lies outside"),
    "a NUL in a name": (item(1, source="a\0.png"), "there can be no picture"),
    "no reference": (item(1, references=["gone.png"]), "there is no picture 'gone.png'"),
    "a list": ([1], "the line: "),
    "a number as source": (item(1, source=3), "source: "),
    "a key twice": ('{"source": "1.png", "source": "2.png", "instruction": "go"}', "is there twice"),
    "half a character": ('{"source": "1.png", "instruction": "\\ud800"}', "half of a character"),
    "too long": (item(1, instruction="x" * 2**20), "it has more than 1,048,576 characters"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_line_is_one_line_with_its_number_when_its_item_is_drawn(tmp_path: Path, fault: str) -> None:
    (line, words), number = FAULTS[fault], outside_of_sample()
    folder = write(tmp_path, {number: line})
    dataset = open_long(folder)
    with pytest.raises(UserError) as raised:
        dataset[number - 1]
    with pytest.raises(UserError) as of_all:
        JsonlDataset(folder)
    assert str(raised.value) == str(of_all.value)
    assert f"data.jsonl:{number}: " in str(raised.value) and words in str(raised.value)
    assert dataset[number].key == f"line-{number + 1}"
    told = [each for each in dataset.faults() if each]
    assert told == [str(raised.value)]


def test_bad_lines_of_the_sample_are_all_told_at_once(tmp_path: Path) -> None:
    numbers = [place + 1 for place in sample_of(LINES, MOST)][3:6]
    write(tmp_path, dict.fromkeys(numbers, "no JSON"))
    faults: list[str] = []
    assert len(open_long(tmp_path, faults).sample) == MOST - 3
    assert [fault.split(": ")[0] for fault in faults] == [f"{tmp_path / 'data.jsonl'}:{number}" for number in numbers]
    with pytest.raises(UserError, match=rf"data\.jsonl:{numbers[0]}: not JSON"):
        open_long(tmp_path)


def test_keys_that_are_there_twice_are_told_with_both_lines(tmp_path: Path) -> None:
    write(tmp_path, {50: item(50, key="line-60"), 70: item(70, key="k"), 80: item(80, key="k")})
    told = [fault for fault in open_long(tmp_path, most=1).faults() if fault]
    file = tmp_path / "data.jsonl"
    assert told == [
        f"{file}:{line}: line {first} has this key too; keys must be unique" for line, first in ((60, 50), (80, 70))
    ]


def test_held_out_lines_are_read_before_training(tmp_path: Path) -> None:
    dataset = open_long(write(tmp_path, {50: item(50, key="k"), 70: item(70, key="k"), 90: "no JSON"}), most=1)
    read_items(dataset, np.array([49, 70]))
    with pytest.raises(UserError, match="two held-out items have the key 'k'"):
        read_items(dataset, np.array([49, 69]))
    with pytest.raises(UserError, match=r"data\.jsonl:90: not JSON"):
        read_items(dataset, np.array([49, 89]))


def test_a_line_without_source_is_told_when_a_part_is_held_out(tmp_path: Path) -> None:
    dataset = open_long(write(tmp_path, {90: {"instruction": "go"}}), most=1)
    with pytest.raises(UserError, match=r"data\.jsonl:90: source: Field required"):
        dataset.sources  # noqa: B018


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"root .*none: there is no such folder"):
        open_stored(tmp_path, tmp_path / "none", most=MOST)


def grown(act: Callable[[], StoredDataset]) -> tuple[StoredDataset, int, int]:
    """What is returned, the bytes that it holds, and those that were taken at most."""
    tracemalloc.start()
    try:
        value = act()
        now, peak = tracemalloc.get_traced_memory()
        return value, now, peak
    finally:
        tracemalloc.stop()


def test_memory_grows_by_three_numbers_a_line(tmp_path: Path) -> None:
    count = 200_000
    line = json.dumps(item(1))
    write(tmp_path, count=1)
    (tmp_path / "data.jsonl").write_text(f"{line}\n" * count)
    dataset, held, peak = grown(lambda: open_stored(tmp_path, most=100))
    assert len(dataset) == count
    assert held < 24 * count + 2**20
    assert peak < 64 * count + 5 * 2**23
