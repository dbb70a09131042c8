from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1.toy.oracle import _regions
from editr1.toy.scene import draw
from editr1.toy.world import ToyDataset
from tests.benchmarks.scripts import script
from tests.documents import read


@pytest.fixture(scope="module")
def masks() -> Iterator[Any]:
    """The script, imported as `python benchmarks/masks.py` does."""
    with script("masks") as module:
        yield module


def test_the_table_of_the_docs_is_that_of_the_results_and_derived_masks_are_good_enough(masks: Any) -> None:
    results = json.loads(masks.RESULTS.read_text())
    assert masks.table(results) in read("docs/preservation.md")
    for name in masks.EDITORS:
        assert results["editors"][name]["mean_iou"] >= 0.6
        assert results["editors"][name]["whole_derived_with_task"] == 0


def test_overlap_is_the_share_of_places_that_both_have(masks: Any) -> None:
    mask, truth = Image.new("L", (4, 4)), np.zeros((4, 4), np.uint8)
    mask.paste(255, (0, 0, 2, 2))
    truth[:2, 1:3] = 1
    assert masks.overlap(mask, truth) == pytest.approx(2 / 6)


@pytest.mark.parametrize("index", range(36))
def test_the_true_mask_holds_all_that_the_target_changes_and_nothing_that_must_stay(masks: Any, index: int) -> None:
    data = ToyDataset("heldout", 36)
    item = data.item(index)
    mask, (_, stay) = item.mask() > 0, _regions(item)
    changed = np.abs(draw(item.scene) - draw(item.edit.target)).max(axis=-1) > 1e-6
    assert not (changed & ~mask).any()
    assert not any((region & mask & ~changed).any() for region in stay.values())
    given = data[index].mask
    assert given is not None and ((np.asarray(given) > 0) == mask).all() and given.mode == "L"
    if not masks.is_local(item):
        assert mask.mean() > 0.5
