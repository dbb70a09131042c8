from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from scipy.stats import spearmanr

from tests.benchmarks.scripts import script
from tests.documents import read


@pytest.fixture(scope="module")
def seen() -> Iterator[Any]:
    """The script, imported as `python benchmarks/seen_damage.py` does."""
    with script("seen_damage") as module:
        yield module


def test_the_table_of_the_docs_is_that_of_the_results_and_masks_of_groups_see_damage(seen: Any) -> None:
    found = json.loads(seen.RESULTS.read_text())
    assert seen.table(found) in read("docs/preservation.md")
    for rewards in found["editors"].values():
        assert rewards["edit"]["preserved"]["ci95"][1] < rewards["group"]["preserved"]["ci95"][0]


def test_a_correlation_is_that_of_ranks_and_is_missing_where_a_reward_cannot_be_ranked(seen: Any) -> None:
    values, truth = [0.1, 0.5, 0.4, 0.9], [0.2, 0.1, 0.3, 0.8]
    assert seen.correlation(values, truth) == pytest.approx(spearmanr(values, truth).statistic)
    assert seen.correlation([0.5] * 4, truth) is None
    assert seen.correlation([0.1, None, 0.4, 0.9], truth) is None


def test_rewards_are_measured_on_groups_of_a_real_editor(seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from editr1.editors.open import open_named_editor

    monkeypatch.setattr(seen, "ITEMS", 2)
    editor = open_named_editor("toy:qwen-image-edit", None, device=torch.device("cpu"))
    found = seen.measure(editor, seen.open_rewards())
    assert [*found] == [*seen.REWARDS]
    assert all(len(values) == 2 for truths in found.values() for values in truths.values())
    assert all(value is not None and -1 <= value <= 1 for value in found["data"]["preserved"])
