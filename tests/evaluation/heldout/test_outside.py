"""What held-out edits keep outside of masks is measured of all of them, whatever an earlier session measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from editr1.data.samples import EditSample
from editr1.editors.open import open_named_editor
from editr1.editors.round_trip import round_trip
from editr1.errors import UserError
from editr1.evaluation.heldout.rows import EditRow, open_image
from editr1.preservation.measure import measure_outside
from editr1.toy.world import ToyDataset
from editr1.training.distributed import World
from editr1.training.preserving import Measure
from tests.evaluation.heldout.test_measure import SETTINGS, Grader, Painter, heldout, measure
from tests.evaluation.ranks import together

ITEMS = 9


def opened() -> Any:
    return open_named_editor("toy:qwen-image-edit", None, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def editor() -> Any:
    return opened()


def rows_of(out: Path, painter: Painter | None = None, items: int = ITEMS, **options: Any) -> list[EditRow]:
    return measure(painter or Painter(0.1), Grader(), heldout(items), out=out, settings=SETTINGS, **options)


def test_edits_that_were_made_without_a_measure_get_the_numbers_of_new_ones_from_their_pictures(
    editor: Any, tmp_path: Path
) -> None:
    bare = rows_of(tmp_path / "later")
    assert not any(row.outside for row in bare)
    painter, told = Painter(0.1), list[int]()
    later = rows_of(tmp_path / "later", painter, outside=Measure(editor), on_items=told.append)
    assert painter.seeds == [] and sum(told) == ITEMS
    for row, sample in zip(later[::2], map(heldout().__getitem__, range(ITEMS)), strict=True):
        edit = open_image(tmp_path / "later", row.image)
        trip = round_trip(editor.pipe, sample.source, edit.size)
        assert row.outside == measure_outside(sample.source, [edit], sample.mask, trip)[0].measures
    assert any(row.outside for row in later)
    assert later == rows_of(tmp_path / "new", outside=Measure(editor))
    assert (tmp_path / "later/rows.jsonl").read_bytes() == (tmp_path / "new/rows.jsonl").read_bytes()


def test_an_evaluation_that_was_stopped_without_a_measure_is_measured_whole(editor: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(Painter(0.1), Grader(stop_at=1), heldout(ITEMS), out=tmp_path / "part", settings=SETTINGS)
    rows = rows_of(tmp_path / "part", outside=Measure(editor))
    assert rows == rows_of(tmp_path / "whole", outside=Measure(editor))


def test_what_is_measured_is_measured_once_and_a_style_by_its_structure(
    editor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(tmp_path, outside=Measure(editor))
    assert {"structure", "ceiling_structure"} in [{*row.outside} for row in rows], "a style has no outside"
    monkeypatch.setattr(Measure, "__call__", lambda *_: pytest.fail("measured again"))
    assert rows_of(tmp_path, outside=Measure(editor)) == rows


def test_another_vision_model_measures_again_and_without_one_its_measure_is_not_told(
    editor: Any, tmp_path: Path
) -> None:
    def features(model: str, value: float) -> set[float | None]:
        rows = rows_of(tmp_path, outside=Measure(editor, lambda one, other: value, model))
        return {row.outside.get("features") for row in rows if "psnr" in row.outside}

    assert features("a", 0.5) == {0.5}
    assert features("b", 0.25) == {0.25}
    assert not any("features" in row.outside for row in rows_of(tmp_path, outside=Measure(editor)))
    assert not any(row.outside for row in rows_of(tmp_path))
    assert features("b", 0.125) == {0.25}, "it is still there"


def test_an_item_with_another_mask_is_measured_again_and_one_without_loses_its_measures(
    editor: Any, tmp_path: Path
) -> None:
    class Other(ToyDataset):
        mask: Image.Image | None = Image.new("L", (64, 64), 0)

        def __getitem__(self, index: int) -> EditSample:
            return replace(super().__getitem__(index), mask=self.mask)

    def again(mask: Image.Image | None) -> list[EditRow]:
        dataset = Other("heldout", 2)
        dataset.mask = mask
        return measure(Painter(0.1), Grader(), dataset, out=tmp_path, settings=SETTINGS, outside=Measure(editor))

    first = rows_of(tmp_path, items=2, outside=Measure(editor))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 8, 8))
    for row, old in zip(again(mask), first, strict=True):
        sample, edit = heldout(2)[[r.key for r in first[::2]].index(row.key)], open_image(tmp_path, row.image)
        assert row.outside["psnr"] == measure_outside(sample.source, [edit], mask)[0].measures["psnr"]
        assert row.outside != old.outside
    assert not any(row.outside for row in again(None))


def test_a_picture_that_is_gone_is_one_line_that_says_how_to_mend(editor: Any, tmp_path: Path) -> None:
    row = rows_of(tmp_path, items=1)[0]
    (tmp_path / row.image).unlink()
    with pytest.raises(UserError, match=r"put it back, or move .* away, and its edits are made again$"):
        rows_of(tmp_path, items=1, outside=Measure(editor))


def test_ranks_share_what_is_measured_again(editor: Any, tmp_path: Path) -> None:
    rows_of(tmp_path / "several", items=20)
    own = [editor, opened()]  # as each process has: this VAE keeps parts of a picture in itself

    def work(world: World) -> list[EditRow]:
        return rows_of(tmp_path / "several", items=20, outside=Measure(own[world.rank]), world=world)

    assert together(2, work) == [rows_of(tmp_path / "one", items=20, outside=Measure(editor))] * 2
