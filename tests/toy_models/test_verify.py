"""The figures beside the weights: checked against scipy, and against numbers that can be seen through."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from editr1.cli import toy as commands
from editr1.errors import UserError
from editr1.toy.assets import WEIGHTS, toy_path
from editr1.toy_models.verify import MeasuredGroup, correlation, editor_figures, judge_figures, verify

scores = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=5, max_size=30)


@settings(max_examples=60, deadline=None)
@given(scores, st.randoms(use_true_random=False))
def test_spearman_is_scipys_with_ties_too(values: list[float], random) -> None:  # type: ignore[no-untyped-def]
    a = np.array(values)
    b = np.array(random.sample(values, len(values)))
    if len(set(values)) == 1:
        assert correlation(a, b) == 0
    else:
        assert correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_an_edit_without_reward_is_left_out_of_the_correlation() -> None:
    a, b = np.array([0.1, 0.2, 0.3, 0.9]), np.array([1.0, 2.0, 3.0, np.nan])
    assert correlation(a, b) == pytest.approx(1)


def test_figures_are_means_over_groups_and_groups_without_spread_have_no_order() -> None:
    flat = MeasuredGroup("add", np.full(4, 0.5), np.array([0.1, 0.9, 0.2, 0.8]))
    good = MeasuredGroup("add", np.array([0.0, 0.2, 0.6, 1.0]), np.array([0.1, 0.2, 0.3, 0.4]))
    bad = MeasuredGroup("style", np.array([0.0, 0.2, 0.6, 1.0]), np.array([0.4, 0.3, 0.2, 0.1]))
    editor, judge = editor_figures([flat, good, bad]), judge_figures([flat, good, bad])
    assert editor["oracle_mean"] == pytest.approx((0.5 + 0.45 + 0.45) / 3, abs=1e-4)
    assert editor["within_group_std"] == pytest.approx(2 * good.oracle.std() / 3, abs=1e-4)
    assert judge["within_group_spearman"] == pytest.approx(0)
    assert judge["by_task"]["add"]["within_group_spearman"] == pytest.approx(1)
    assert judge["by_task"]["style"]["spearman"] == pytest.approx(-1)


def test_a_sheet_shows_every_item_asked_for(tmp_path: Path) -> None:
    commands.sample(tmp_path / "new" / "sheet.png", count=4)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.size == (3 * (2 * 160 + 24), 2 * (160 + 44))


def test_a_toy_model_that_is_not_shipped_is_refused_with_the_ones_that_are() -> None:
    with pytest.raises(UserError, match="no toy model is called 'nothing'"):
        toy_path("nothing")


def test_the_figures_beside_the_weights_are_within_the_bounds_that_the_demo_needs() -> None:
    figures = json.loads((WEIGHTS / "verify.qwen-image-edit.json").read_text())
    editor, judge = figures["editor"], figures["judge"]
    assert figures["vae"]["psnr_db"] >= 26
    assert 0.35 <= editor["oracle_mean"] <= 0.70 and editor["within_group_std"] >= 0.12
    assert judge["spearman"] >= 0.80 and judge["within_group_spearman"] >= 0.60
    assert all(task["within_group_spearman"] >= 0.40 for task in judge["by_task"].values())
    assert len(editor["by_task"]) == len(judge["by_task"]) == 9
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*")) < 40e6


def test_the_second_editor_has_something_to_gain_and_the_judge_some_order_of_edits_it_never_saw() -> None:
    figures = json.loads((WEIGHTS / "verify.flux-kontext.json").read_text())
    assert figures["vae"]["psnr_db"] >= 26
    assert 0.35 <= figures["editor"]["oracle_mean"] <= 0.70 and figures["editor"]["within_group_std"] >= 0.12
    assert figures["judge"]["spearman"] >= 0.75 and figures["judge"]["within_group_spearman"] >= 0.45
    assert sum(path.stat().st_size for path in (WEIGHTS / "flux-kontext").rglob("*")) <= 15e6


def test_the_shipped_models_do_on_a_few_items_about_what_stands_beside_them() -> None:
    stated = json.loads((WEIGHTS / "verify.qwen-image-edit.json").read_text())
    found = verify(toy_path("qwen-image-edit"), toy_path("judge"), items=18)
    assert found["editor"]["oracle_mean"] == pytest.approx(stated["editor"]["oracle_mean"], abs=0.15)
    assert found["judge"]["spearman"] > 0.6
