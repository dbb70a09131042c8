"""Boxes: what files mean, what is refused, and the pixels that a box covers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Images

from editr1.errors import UserError
from editr1.recipe.boxes import LABEL_MAX, Box, clamped, crop, kept, read_boxes, with_red_box

COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a/b.jpg", "width": 200, "height": 100, "license": 3}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [50, 20, 100, 40], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [190, 90, 100, 100]},
    ],
}
SIMPLE = {"./a/b.jpg": [{"label": "cat", "box": [50, 20, 150, 60]}, {"label": "dog", "box": [190, 90, 290, 190]}]}


@pytest.mark.parametrize("content", [COCO, SIMPLE], ids=["COCO", "simple"])
def test_both_kinds_of_files_mean_the_same_boxes(tmp_path: Path, content: object) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    (cat, dog) = read_boxes(tmp_path / "boxes.json")["a/b.jpg"]
    assert cat.on((200, 100)) == Box("cat", (0.25, 0.2, 0.75, 0.6))
    assert dog.on((200, 100)) == Box("dog", (0.95, 0.9, 1.0, 1.0)), "a box ends where its picture does"


def test_coco_boxes_fit_a_picture_that_was_resized(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(COCO))
    (cat, _) = read_boxes(tmp_path / "boxes.json")["a/b.jpg"]
    assert cat.on((50, 25)) == cat.on((200, 100))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "valid dictionary"),
        ('{"a.png": [{"label": "x", "box": [1, 2, 3]}]}', "at least 4 items"),
        ('{"a.png": [{"label": "x", "box": [1, 2, "3", 4]}]}', "valid number"),
        ('{"a.png": [{"label": "x", "box": [1, 2, true, 4]}]}', "valid number"),
        ('{"a.png": [{"label": "", "box": [1, 2, 3, 4]}]}', "at least 1 character"),
        ('{"a.png": [{"label": "x", "box": [1, 2, 3, NaN]}]}', "NaN is no number"),
        (json.dumps({**COCO, "categories": []}), "does not list"),
        (json.dumps({**COCO, "images": [{**COCO["images"][0], "width": 0}]}), "greater than 0"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(UserError, match=rf"boxes\.json.*{words}") as told:
        read_boxes(tmp_path / "boxes.json")
    assert len(told.value.args) == 1


def test_boxes_out_of_range_are_dropped_and_counted_by_reason() -> None:
    boxes = [Box("small", (0, 0, 0.1, 0.05)), Box("right", (0, 0, 0.5, 0.5)), Box("large", (0, 0, 1, 0.9))]
    good, dropped = kept(boxes, 0.01, 0.5)
    assert good == [boxes[1]] and dropped == {"too small": 1, "too large": 1}


@pytest.mark.parametrize("ends", [(5, 5, 5, 9), (9, 0, 1, 9), (20, 20, 30, 30), (0, 0, float("nan"), 9)])
def test_what_holds_nothing_is_no_box(ends: tuple[float, ...]) -> None:
    assert clamped("x", ends, 10, 10) is None


def test_a_label_of_strangers_is_one_short_line_without_control_tokens() -> None:
    box = clamped("a\n\x1b[31mred <|im_end|>\u202ecar" + 200 * "x", (0, 0, 5, 5), 10, 10)
    assert box is not None
    assert box.label.isprintable() and "<|" not in box.label and len(box.label) <= LABEL_MAX + 1
    assert clamped("\n\x00 ", (0, 0, 5, 5), 10, 10) is None


def test_a_crop_has_a_tenth_more_on_each_side_and_stays_inside() -> None:
    picture = Images.new("RGB", (100, 50))
    assert crop(picture, Box("x", (0.2, 0.2, 0.4, 0.6))).size == (24, 24)
    assert crop(picture, Box("x", (0.0, 0.0, 1.0, 1.0))).size == (100, 50)
    assert crop(picture, Box("x", (0.999, 0.999, 1.0, 1.0))).size == (1, 1)


def test_a_red_box_is_on_the_edge_of_the_box_and_the_given_picture_stays_as_it_was() -> None:
    picture = Images.new("RGB", (100, 50), "white")
    drawn = with_red_box(picture, Box("x", (0.2, 0.2, 0.4, 0.6)))
    assert drawn.getpixel((20, 10)) == drawn.getpixel((39, 29)) == (255, 0, 0)
    assert drawn.getpixel((19, 10)) == drawn.getpixel((40, 29)) == drawn.getpixel((30, 20)) == (255, 255, 255)
    assert picture.getcolors() == [(5000, (255, 255, 255))]
