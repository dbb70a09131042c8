from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.scripts import script
from tests.documents import read


@pytest.fixture(scope="module")
def headroom() -> Iterator[Any]:
    """The script, imported as `python benchmarks/headroom.py` does."""
    with script("headroom") as module:
        yield module


def test_the_table_of_the_docs_is_that_of_the_results_and_the_trained_runs_are_those_that_are_kept(
    headroom: Any,
) -> None:
    found = json.loads(headroom.RESULTS.read_text())
    assert headroom.table(found) in read("docs/bench.md")
    start, runs = headroom.kept()
    assert len(runs) == 5 and found["trained"] == runs and found["untrained_first"] == start


def test_the_best_edit_is_chosen_by_item_and_all_edits_count_without_a_choice(headroom: Any) -> None:
    edits = {
        "score": np.array([[0.1, 0.6], [0.5, 0.3]]),
        "done": np.array([[0.1, 0.8], [0.5, 0.9]]),
        "preserved": np.array([[1.0, 0.75], [1.0, 0.25]]),
        "judge": np.array([[0.9, 0.2], [0.1, 0.8]]),
    }
    assert headroom.choose(edits, "score") == {"score": 0.55, "done": 0.65, "preserved": 0.875, "failed": 0}
    assert headroom.choose(edits, "judge") == {"score": 0.2, "done": 0.5, "preserved": 0.625, "failed": 0.5}
    assert headroom.choose(edits, None) == {"score": 0.375, "done": 0.575, "preserved": 0.75, "failed": 0.25}


def test_the_edits_are_those_of_the_demo(headroom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "ITEMS", 2)
    monkeypatch.setattr(headroom, "EDITS", 3)
    edits = headroom.measure()
    assert {name: values.shape for name, values in edits.items()} == dict.fromkeys(
        ("score", "done", "preserved", "judge"), (2, 3)
    )
    assert np.allclose(edits["score"], edits["done"] * edits["preserved"])
    assert ((edits["judge"] >= 0) & (edits["judge"] <= 1)).all()
