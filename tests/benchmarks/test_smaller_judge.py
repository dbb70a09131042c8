from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from editr1.config.loading import load_config
from editr1.judges.base import JudgeRequest
from editr1.judges.open import open_config_judge
from editr1.toy.assets import toy_path
from editr1.toy.world import ToyDataset
from editr1.toy_models.verify import MeasuredGroup
from tests.benchmarks.scripts import BENCHMARKS, script
from tests.documents import read


@pytest.fixture(scope="module")
def smaller() -> Iterator[ModuleType]:
    """The script, imported as `python benchmarks/smaller_judge.py` does."""
    with script("smaller_judge") as module:
        yield module


def test_a_judge_of_few_steps_is_smaller_and_answers_with_the_settings_of_the_toy_preset(
    smaller: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"STEPS": 4, "STOP": 3, "LOOK": 1, "ALONE": 2, "BATCH": 6, "SAMPLE_ITEMS": 2}.items():
        monkeypatch.setattr(smaller, name, value)
    monkeypatch.setattr(torch.optim, "Muon", partial(torch.optim.Muon, ns_steps=1))
    smaller.make(tmp_path)
    assert smaller.parameters(tmp_path / "judge") < smaller.parameters(toy_path("judge")) / 2
    judge = open_config_judge(load_config("toy", [f"judge.path={tmp_path / 'judge'}"]))
    sample = ToyDataset("heldout", 1)[0]
    (score,) = judge.score([JudgeRequest(sample, sample.source)])
    assert score.value is not None and 0 < score.value < 1


def test_orders_are_compared_group_by_group_and_groups_without_an_order_left_out(smaller: ModuleType) -> None:
    truths = [np.array([0.1, 0.5, 0.9]), np.array([0.9, 0.5, 0.1]), np.array([0.5, 0.5, 0.5])]
    up = np.array([0.2, 0.3, 0.4])
    groups = {
        "shipped": [MeasuredGroup("add", truth, truth) for truth in truths],
        "smaller": [MeasuredGroup("add", truth, up) for truth in truths],
    }
    found = smaller.order_figures(groups)
    assert found["groups"] == 2
    assert found["shipped"] == {"mean": pytest.approx(1), "ci95": pytest.approx([1, 1])}
    assert found["smaller"]["mean"] == pytest.approx(0)
    assert found["difference"] == {"mean": pytest.approx(-1), "ci95": pytest.approx([-2, 0])}


def cells(figures: dict[str, Any], name: str) -> str:
    """The line of a judge in the table of the docs."""
    pairs, order = figures["pairs"][name], figures["within_groups"][name]
    right = "{:.1f} | {:.1f}-{:.1f}".format(*(100 * value for value in (pairs["accuracy"], *pairs["ci95"])))
    within = "{:.2f} | {:.2f}-{:.2f}".format(order["mean"], *order["ci95"])
    return f"| {name} | {figures['parameters'][name] / 1e6:.2f} | {right} | {within} |"


def test_the_committed_judge_is_worse_than_the_shipped_one_and_the_docs_say_how_much(smaller: ModuleType) -> None:
    figures, page = json.loads(smaller.RESULT.read_text(encoding="utf-8")), read("docs/judges.md")
    assert figures["within_groups"]["difference"]["ci95"][1] < 0
    assert figures["pairs"]["smaller"]["ci95"][1] < figures["pairs"]["shipped"]["ci95"][0]
    for name in ("shipped", "smaller"):
        assert cells(figures, name) in page.splitlines()
    groups = figures["within_groups"]
    behind = sorted(-value for value in groups["difference"]["ci95"])
    low, high = groups["smaller"]["ci95"]
    assert low < 0 < high  # as the docs say: no order is shown
    text = page[page.index("## A smaller toy judge") :]
    assert f"correlation of {groups['groups']} items" in text and f"the {figures['pairs']['pairs']} pairs" in text
    assert "{:.2f} [{:.2f}, {:.2f}] behind".format(-groups["difference"]["mean"], *behind) in text


def test_the_grid_takes_the_judge_from_the_folder_that_the_script_fills_by_default(smaller: ModuleType) -> None:
    variants = yaml.safe_load((BENCHMARKS / "grids" / "judges.yaml").read_text())["variants"]
    assert [*variants][:2] == ["shipped", "smaller"]
    assert variants["smaller"] == [f"judge.path={smaller.OUT / 'judge'}"]
