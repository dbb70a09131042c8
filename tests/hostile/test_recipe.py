"""`data build` and `data suggest` among odd pictures, box files, folders and rows of strangers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.data.samples import JsonlDataset
from editr1.judges.base import Answer, Ask, Position
from editr1.recipe.boxes import read_boxes
from editr1.recipe.building import BoxSource, build
from editr1.recipe.suggesting import fill, open_gaps
from editr1.recipe.writing import Recipe
from tests.hostile.harness import Case, Judged

REMOVES = json.dumps({"instruction": "Remove the dog.", "requirement": "The dog is gone."})
OBJECTS = json.dumps({"objects": [{"label": "dog", "box": [100, 100, 500, 500]}]})


class Says:
    """A model that finds a dog in every picture, wants it gone, and finds that sensible."""

    name, remote = "says", False

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        return [self.one(ask) for ask in asks]

    def one(self, ask: Ask) -> Answer:
        if ask.choices:
            return Answer("yes", (Position("yes", {"yes": -0.1, "no": -3.0}),))
        return Answer(OBJECTS if str(ask.parts[-1]).startswith("List") else REMOVES)


def make(folder: Path, boxes: Path | None = None) -> dict[str, Any]:
    return build(folder / "photos", folder / "out", Says(), Recipe(tasks=("remove",)), BoxSource(boxes))


def with_odd_picture(odd: Callable[[Path], object], folder: Path) -> None:
    """One good picture beside one that is none: it is told, and the good one becomes an item."""
    photos = folder / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 32), "red").save(photos / "good.png")
    odd(photos / "odd.png")
    counts = make(folder)
    assert (counts["pictures"], counts["items"], counts["unreadable"]) == (2, 1, 1)
    assert [line.source for line in JsonlDataset(folder / "out").lines] == ["pictures/good.png"]


def good_picture(name: str, folder: Path) -> None:
    """A picture with an odd name becomes an item."""
    (folder / "photos").mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "photos" / name, "PNG")
    assert make(folder)["items"] == len(JsonlDataset(folder / "out")) == 1


def bomb(path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(path)


def boxes_of(text: str, folder: Path) -> None:
    (folder / "boxes.json").write_text(text)
    read_boxes(folder / "boxes.json")


def boxes_at(place: Callable[[Path], object], folder: Path) -> None:
    place(folder / "boxes.json")
    read_boxes(folder / "boxes.json")


def again_after(spoil: Callable[[Path], object], folder: Path) -> None:
    """A build whose folder somebody has changed, once more."""
    (folder / "photos").mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "photos" / "good.png")
    make(folder)
    spoil(folder / "out")
    counts = make(folder)
    assert counts["items"] == 1 and len(JsonlDataset(folder / "out")) == 1


def after_item_with(**change: Any) -> Callable[[Path], None]:
    """Once more after keys of the one item are others in its row."""

    def spoil(out: Path) -> None:
        head, line = (out / "answers.jsonl").read_text().splitlines()
        row = json.loads(line)
        row["items"][0].update(change)
        (out / "answers.jsonl").write_text(f"{head}\n{json.dumps(row)}\n")

    return partial(again_after, spoil)


def cut_off(out: Path) -> None:
    """As by a kill in the middle of a line."""
    file = out / "answers.jsonl"
    file.write_bytes(file.read_bytes()[:-9])


def instead(name: str, make_it: Callable[[Path], object], out: Path) -> None:
    (out / name).unlink()
    make_it(out / name)


def out_is(place: Callable[[Path], object], folder: Path) -> None:
    (folder / "photos").mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "photos" / "good.png")
    place(folder / "out")
    make(folder)


def suggest_beside(place: Callable[[Path], object], folder: Path) -> None:
    """The answers of `data suggest` have their file beside the new one."""
    Image.new("RGB", (32, 32), "red").save(folder / "a.png")
    (folder / "data.jsonl").write_text('{"source": "a.png", "instruction": "Remove the dog."}\n')
    place(folder / "new.jsonl.answers")
    fill(open_gaps(folder, folder / "new.jsonl"), Says())


PICTURES = (
    Case("a pipe", partial(with_odd_picture, os.mkfifo), expects="clean"),
    Case("a folder that is called as a picture", partial(with_odd_picture, Path.mkdir), expects="clean"),
    Case("a link to itself", partial(with_odd_picture, lambda path: path.symlink_to(path)), expects="clean"),
    Case("a link to a device", partial(with_odd_picture, lambda path: path.symlink_to("/dev/zero")), expects="clean"),
    Case("an empty file", partial(with_odd_picture, Path.touch), expects="clean"),
    Case("100 million pixels", partial(with_odd_picture, bomb), expects="clean"),
    Case(
        "a program for a printer",
        partial(with_odd_picture, lambda path: path.write_bytes(b"%!PS-3.0")),
        expects="clean",
    ),
    Case("capitals, spaces and letters", partial(good_picture, "Ünser Hund (1).PNG"), expects="clean"),
    Case("250 letters", partial(good_picture, 246 * "x" + ".png"), expects="clean"),
    Case("a name of dots", partial(good_picture, "a..png.png"), expects="clean"),
    Case("a newline in a name", partial(good_picture, "a\nb.png")),
    Case("bytes that are no text in a name", partial(good_picture, os.fsdecode(b"a\xff.png"))),
)
NINES = 5000 * "9"
INFINITE = {
    "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
    "categories": [{"id": 1, "name": "x"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1.7e308, 0, 1.7e308, 9]}],
}
BOXES = (
    Case("nothing", partial(boxes_of, "")),
    Case("nested without end", partial(boxes_of, 100_000 * "[")),
    Case("a number of 5,000 digits", partial(boxes_of, f'{{"a.png": [{{"label": "x", "box": [1, 2, 3, {NINES}]}}]}}')),
    Case("a key twice", partial(boxes_of, '{"a.png": [], "a.png": []}')),
    Case("half a character", partial(boxes_of, '{"a.png": [{"label": "\\ud800", "box": [1, 2, 3, 4]}]}')),
    Case("COCO of lists", partial(boxes_of, '{"images": [], "annotations": [[]], "categories": []}')),
    Case("COCO whose sum is infinite", partial(boxes_of, json.dumps(INFINITE)), expects="clean"),
    Case("a pipe", partial(boxes_at, os.mkfifo)),
    Case("a device", partial(boxes_at, lambda path: path.symlink_to("/dev/zero"))),
    Case("a folder", partial(boxes_at, Path.mkdir)),
)
FOLDERS = (
    Case("a row that leaves the folder", after_item_with(source="../photos/good.png")),
    Case("a row without a picture", after_item_with(source="none.png"), expects="clean"),
    Case("a row of another form", after_item_with(x=1)),
    Case("a row with a NUL in an instruction", after_item_with(instruction="a\0b")),
    Case("a NUL in the name of a picture", after_item_with(source="a\0b"), expects="either"),
    Case("a cut-off row", partial(again_after, cut_off), expects="clean"),
    Case("a pipe for rows", partial(again_after, partial(instead, "answers.jsonl", os.mkfifo))),
    Case("a pipe for data", partial(again_after, partial(instead, "data.jsonl", os.mkfifo))),
    Case("a file in place of the folder", partial(out_is, Path.touch)),
    Case("a device in place of the folder", partial(out_is, lambda path: path.symlink_to("/dev/full"))),
    Case("a file in place of the pictures", partial(out_is, lambda path: (path.mkdir(), (path / "pictures").touch()))),
    Case("a pipe for answers of suggest", partial(suggest_beside, os.mkfifo)),
    Case("other answers for suggest", partial(suggest_beside, lambda path: path.write_text('{"a": 1}\n{"b": 2}\n'))),
)


@pytest.mark.parametrize("case", PICTURES, ids=str)
def test_no_picture_breaks_a_build(case: Case, judged: Judged) -> None:
    judged(case)


@pytest.mark.parametrize("case", BOXES, ids=str)
def test_no_file_of_boxes_breaks_it(case: Case, judged: Judged) -> None:
    judged(case)


@pytest.mark.parametrize("case", FOLDERS, ids=str)
def test_no_folder_of_data_breaks_it(case: Case, judged: Judged) -> None:
    judged(case)
