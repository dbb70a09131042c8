"""Items of the user's own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.config.loading import load_config
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.training.datasets import open_dataset, open_datasets
from editr1.training.preflight import Findings, check_run

ITEMS = [EditSample(f"item-{i}", Image.new("RGB", (64, 64), (40 * i, 0, 0)), "make it blue") for i in range(5)]
NOTHING: list[EditSample] = []
NUMBER = 3


class Items:
    def __len__(self) -> int:
        return len(ITEMS)

    def __getitem__(self, index: int) -> EditSample:
        return ITEMS[index]


def made() -> Sequence[EditSample]:
    return ITEMS[:2]


def config(name: str, *overrides: str) -> Any:
    return load_config("toy", [f"data={{kind: function, path: '{__name__}:{name}'}}", *overrides])


@pytest.mark.parametrize(("name", "count"), [("Items", 5), ("made", 2), ("ITEMS", 5)])
def test_a_class_a_function_and_a_list_are_items(name: str, count: int) -> None:
    items = open_dataset(config(name).data)
    assert [items[i].key for i in range(len(items))] == [f"item-{i}" for i in range(count)]


def test_own_items_can_be_held_out() -> None:
    training, heldout = open_datasets(config("Items", "evaluation={split: 2}"))
    assert heldout is not None
    keys = [{some[i].key for i in range(len(some))} for some in (training, heldout)]
    assert list(map(len, keys)) == [3, 2] and keys[0] | keys[1] == {each.key for each in ITEMS}


@pytest.mark.parametrize(
    ("name", "words"), [("NOTHING", "gives no item"), ("NUMBER", "gives int, not items"), ("none", "cannot be loaded")]
)
def test_what_is_no_items_is_one_line(name: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"^data.path '{__name__}:{name}' .*{words}"):
        open_dataset(config(name).data)


def test_a_function_must_be_named() -> None:
    with pytest.raises(UserError, match=r'data\.path must be "pkg\.module:name" of your items'):
        load_config("toy", ["data={kind: function}"])


def test_the_check_before_a_run_counts_own_items_and_tells_their_faults(tmp_path: Path) -> None:
    findings = Findings()
    check_run(config("Items", f"out={tmp_path / 'out'}"), findings)
    assert findings.facts["data"] == f"5 items of {__name__}:Items" and findings.faults == []
    findings = Findings()
    check_run(config("NOTHING", f"out={tmp_path / 'out'}"), findings)
    assert findings.faults == [f"data.path '{__name__}:NOTHING' gives no item"]
