from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.benchmarks.scripts import script
from tests.documents import read


@pytest.fixture(scope="module")
def seen() -> Iterator[Any]:
    """The script, imported as `python benchmarks/seen_structure.py` does."""
    with script("seen_structure") as module:
        yield module


def test_the_table_of_the_docs_is_that_of_the_results_and_structure_sees_what_is_preserved(seen: Any) -> None:
    found = json.loads(seen.RESULTS.read_text())
    assert seen.table(found) in read("docs/preservation.md")
    for tasks in found["editors"].values():
        assert all(truths["preserved"]["ci95"][0] > 0 for truths in tasks.values())


def test_structure_is_measured_on_groups_of_a_real_editor(seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from editr1.editors.open import open_named_editor

    monkeypatch.setattr(seen, "ITEMS", 2)
    editor = open_named_editor("toy:qwen-image-edit", None, device=torch.device("cpu"))
    found = seen.measure(editor)
    assert [*found] == [*seen.TASKS]
    assert all(len(values) == 2 for truths in found.values() for values in truths.values())
    assert all(value is not None and -1 <= value <= 1 for value in found["style"]["preserved"])
