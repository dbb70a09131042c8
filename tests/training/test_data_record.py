"""A run knows its data by content: of lines what they say, of pictures their bytes, not names, times or places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.data.samples import JsonlDataset
from editr1.errors import UserError
from editr1.training.data_check import Headers, PictureCheck
from editr1.training.data_record import DataRecord, read_record

SIDES = (8, 9, 10)


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"source": f"{number}.png", "instruction": "make it red", "key": f"k{number}", **more}


def write(folder: Path, *items: dict[str, Any]) -> None:
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, items)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, side in enumerate(SIDES):
        Image.new("RGB", (side, side), "red").save(tmp_path / f"{number}.png")
    write(tmp_path, *map(item, range(3)))
    return tmp_path


def record_of(folder: Path) -> DataRecord:
    dataset = JsonlDataset(folder)
    return DataRecord(folder / "data.json", dataset, PictureCheck(dataset.pictures, Headers(folder / "cache"), True))


def look(record: DataRecord, enough: Callable[[], bool] = lambda: False) -> list[str]:
    record.pictures.run(enough, lambda fault: None)
    return record.pictures.faults


def begin(folder: Path) -> None:
    record = record_of(folder)
    look(record)
    record.begin()


def test_a_record_holds_keys_and_hashes_of_contents(folder: Path) -> None:
    begin(folder)
    items = read_record(folder / "data.json").sample
    assert [key for key, _, _ in items] == ["k0", "k1", "k2"]
    assert len({texts for _, texts, _ in items}) == 1  # they say the same
    files = [hashlib.sha256((folder / f"{number}.png").read_bytes()).hexdigest()[:32] for number in range(3)]
    assert [hashes for _, _, hashes in items] == [[each] for each in files]


def test_nothing_is_written_before_the_folder_is_the_runs_own(folder: Path) -> None:
    record = record_of(folder)
    record.keep()
    assert not record.file.exists()


def test_pictures_that_were_not_looked_at_stay_known_from_before_or_unknown(folder: Path) -> None:
    record = record_of(folder)
    look(record, lambda: record.pictures.seen == 1)
    record.begin()
    assert sum(hashes == [None] for _, _, hashes in read_record(record.file).sample) == 2
    begin(folder)
    whole, record = read_record(folder / "data.json"), record_of(folder)
    record.compare()
    record.begin()
    assert record.pictures.seen == 0 and read_record(record.file) == whole


def test_one_line_says_how_many_lines_changed_and_which_is_the_first(folder: Path) -> None:
    begin(folder)
    write(folder, item(2, task="add"), item(1), {**item(0), "key": "new"})
    with pytest.raises(UserError) as error:
        record_of(folder).compare()
    assert str(error.value) == (
        f"{folder / 'data.jsonl'} is not what it was when the run began (1 added, first 'new', 1 removed, first 'k0', "
        "1 with other words, first 'k2', 2 moved, first 'k2'); put it back, or go on with the data as it is: "
        "data.changed=true"
    )


def test_a_picture_counts_by_its_content_for_each_of_its_items(folder: Path) -> None:
    begin(folder)
    for items, faulty in (
        ([item(0), {**item(1), "source": "0.png"}, item(2)], ["0.png of item 'k0'"]),  # two are expected there
        ([{**item(0), "source": "copy.png"}, item(1), item(2)], []),
    ):
        (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
        write(folder, *items)
        record = record_of(folder)
        record.compare()
        assert [name in fault for fault, name in zip(look(record), faulty, strict=True)] == [True] * len(faulty)
