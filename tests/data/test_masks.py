from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from editr1.data.checking.check import DataCheck
from editr1.data.convert import convert
from editr1.data.forms import open_stored
from editr1.data.masks import Boxes, Given, outlined
from editr1.data.pictures import png
from editr1.data.samples import ItemLine, JsonlDataset
from editr1.errors import UserError
from editr1.training.data_record import _hash
from tests.formats import FORMS, toy_rows, write_form

SHARES = st.floats(0, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["unit", "boxes", "x"]), inner),
    max_leaves=12,
)


def pixels(image: Image.Image | None) -> Any:
    assert image is not None
    return np.asarray(image).tolist()


@given(
    st.integers(1, 40), st.integers(1, 40), st.lists(st.tuples(SHARES, SHARES, SHARES, SHARES), min_size=1, max_size=4)
)
def test_every_pixel_that_a_box_touches_is_white_and_no_other(width: int, height: int, ends: list[Any]) -> None:
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in ends]
    boxes = [box for box in boxes if box[0] < box[2] and box[1] < box[3] and box[0] * width < width]
    boxes = [box for box in boxes if box[0] < 1 and box[1] < 1] or [(0.0, 0.0, 1.0, 1.0)]
    mask = np.asarray(Boxes(unit="share", boxes=tuple(boxes)).draw((width, height))) > 0
    for y in range(height):
        for x in range(width):
            touched = any(
                left * width < x + 1 and x < right * width and top * height < y + 1 and y < bottom * height
                for left, top, right, bottom in boxes
            )
            assert mask[y, x] == touched


@given(JSON)
def test_what_is_no_mask_is_refused_in_words_and_what_is_one_can_be_drawn(value: Any) -> None:
    try:
        mask = TypeAdapter(Given).validate_python(value)
    except ValidationError:
        return
    if isinstance(mask, str):
        assert mask == value and mask
        return
    limit = 1 if mask.unit == "share" else math.inf
    assert all(0 <= left < right <= limit and 0 <= top < bottom <= limit for left, top, right, bottom in mask.boxes)


def test_pixels_and_shares_mean_the_same_box() -> None:
    by_pixels = Boxes(unit="pixels", boxes=((2, 1, 6, 3),)).draw((8, 4))
    by_share = Boxes(unit="share", boxes=((0.25, 0.25, 0.75, 0.75),)).draw((8, 4))
    expected = np.zeros((4, 8), np.uint8)
    expected[1:3, 2:6] = 255
    assert pixels(by_pixels) == pixels(by_share) == expected.tolist()


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        ({"unit": "share", "boxes": [[0, 0, 2, 1]]}, "2 is no share of the picture"),
        ({"unit": "pixels", "boxes": [[3, 0, 3, 1]]}, r"\[3, 0, 3, 1\] is empty"),
        ({"unit": "pixels", "boxes": [[-1, 0, 3, 1]]}, "greater than or equal to 0"),
        ({"unit": "pixels", "boxes": []}, "at least 1 item"),
        ({"unit": "pixels", "boxes": [[0, 0, True, 1]]}, "valid number"),
        ({"boxes": [[0, 0, 1, 1]]}, "unit"),
        ({"unit": "inches", "boxes": [[0, 0, 1, 1]]}, "'pixels' or 'share'"),
        ("", "at least 1 character"),
        (["a.png"], "mask"),
    ],
)
def test_a_wrong_mask_is_named_with_file_line_and_reason(mask: Any, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (40, 40))))
    (tmp_path / "data.jsonl").write_text(json.dumps({"source": "a.png", "instruction": "go", "mask": mask}))
    with pytest.raises(UserError, match=rf"data\.jsonl:1: .*{problem}") as caught:
        JsonlDataset(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        ("small.png", "has 20x20 pixels, its source 40x40; make it of the source's size"),
        ({"unit": "pixels", "boxes": [[40, 0, 41, 1]]}, r"the box \[40.0, 0.0, 41.0, 1.0\] is outside"),
        ("broken.png", "cannot read the mask"),
    ],
)
def test_a_mask_that_does_not_fit_is_told_with_its_item_and_by_the_check(
    mask: Any, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (40, 40))))
    (tmp_path / "small.png").write_bytes(png(Image.new("L", (20, 20))))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "data.jsonl").write_text(json.dumps({"source": "a.png", "instruction": "go", "mask": mask}))
    with pytest.raises(UserError, match=problem) as caught:
        JsonlDataset(tmp_path)[0]
    assert "item 'line-1'" in str(caught.value)
    assert [fault.kind for fault in DataCheck(tmp_path).run()] == ["mask"]


def test_a_mask_is_white_from_middle_grey_on_and_where_it_is_transparent(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (4, 1))))
    grey = Image.new("LA", (4, 1))
    for x, value in enumerate([(127, 255), (128, 255), (0, 0), (0, 255)]):
        grey.putpixel((x, 0), value)
    (tmp_path / "m.png").write_bytes(png(grey))
    (tmp_path / "data.jsonl").write_text(json.dumps({"source": "a.png", "instruction": "go", "mask": "m.png"}))
    mask = JsonlDataset(tmp_path)[0].mask
    assert mask is not None and (mask.mode, pixels(mask)) == ("L", [[0, 255, 255, 0]])


def masked_rows() -> list[dict[str, Any]]:
    """Toy items: a mask as a picture, as boxes, and none, in turn; the second has references too."""
    rows = toy_rows(6)
    for index, row in enumerate(rows):
        white = Image.new("L", (64, 64))
        white.paste(255, (index, 0, index + 8, 8))
        boxes = {"unit": "share", "boxes": [[0.0, 0.25, 0.5, 1.0]]}
        row["mask"] = (png(white), boxes, None)[index % 3]
    rows[1]["references"], rows[3]["references"] = rows[3]["references"], [rows[0]["source"], rows[2]["source"]]
    return rows


@pytest.mark.parametrize("form", FORMS)
def test_masks_are_the_same_in_every_form_and_in_its_conversion(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    kinds = [row for row in masked_rows() if form in ("jsonl", "tar") or not isinstance(row["mask"], dict)]
    data = open_stored(write_form(form, kinds, tmp_path / form))
    for index, row in enumerate(kinds):
        expected = np.zeros((64, 64), np.uint8)
        number = int(row["key"].removeprefix("toy-"))
        if isinstance(row["mask"], bytes):
            expected[:8, number : number + 8] = 255
        elif row["mask"] is not None:
            expected[16:, :32] = 255
        item = data[index]
        assert len(item.references) == len(row["references"])
        assert item.mask is None if row["mask"] is None else pixels(item.mask) == expected.tolist()
    faults: list[str] = []
    convert(data, tmp_path / "out", faults, lambda: None)
    again = JsonlDataset(tmp_path / "out")
    assert not faults
    for index in range(len(kinds)):
        before, after = data[index], again[index]
        assert len(before.references) == len(after.references)
        assert (before.mask is None) == (after.mask is None)
        assert before.mask is None or pixels(before.mask) == pixels(after.mask)


def test_boxes_in_a_column_of_a_table_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (8, 4))))
    masks = [{"unit": "pixels", "boxes": [[2.0, 1.0, 6.0, 3.0]]}, None]
    table = {"source": ["a.png"] * 2, "instruction": ["go", "on"], "mask": pa.array(masks)}
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")
    data = open_stored(tmp_path)
    assert np.asarray(data[0].mask).sum() == 8 * 255 and data[1].mask is None


@pytest.mark.parametrize(
    ("box", "size"),
    [((4, 2, 12, 9), (24, 16)), ((0, 0, 24, 16), (24, 16)), ((8, 4, 24, 18), (48, 32)), ((2, 1, 6, 4), (12, 8))],
)
def test_a_mask_is_outlined_by_a_white_line_inside_of_its_edge_and_a_black_one_within(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    mask = Image.new("L", size)
    mask.paste(255, box)
    left, top, right, bottom = (end * 24 // size[0] for end in box)
    expected = np.full((16, 24, 3), (200, 0, 0))
    for ring, colour in enumerate(((255, 255, 255), (0, 0, 0), (200, 0, 0))):
        expected[top + ring : bottom - ring, left + ring : right - ring] = colour
    picture = Image.new("RGB", (24, 16), (200, 0, 0))
    assert pixels(outlined(picture, mask)) == expected.tolist()
    assert picture.getcolors() == [(24 * 16, (200, 0, 0))], "it stays as it is"


def test_an_item_without_mask_has_the_hash_that_it_had_before_there_were_masks() -> None:
    line = {"source": "a.png", "instruction": "go"}
    hashes = {_hash(ItemLine.model_validate(line))}
    assert hashes == {"eb2c1e8d883f38d1b684c1752b0d29a5"}
    boxes = [{"unit": "share", "boxes": [[0, 0, 1, end]]} for end in (0.5, 1.0)]
    hashes |= {_hash(ItemLine.model_validate({**line, "mask": mask})) for mask in ("m.png", *boxes)}
    assert len(hashes) == 4
