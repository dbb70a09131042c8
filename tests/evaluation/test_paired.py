"""The figures of results.json against scipy's bootstrap, closed forms and hand-made rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from editr1.evaluation.heldout.rows import EditRow
from editr1.evaluation.paired import bootstrap_ci, figures, summarise


def row(key: str, seed: int, oracle: float, judge: float | None = 0.5, task: str = "add") -> EditRow:
    reason = None if judge is not None else "not finite"
    scores = {"score": oracle, "done": oracle, "preserved": 1.0}
    return EditRow(key, task, seed, f"do {key}", judge, reason, scores, f"{key}_{seed}.png")


def test_interval_equals_scipys_percentile_bootstrap() -> None:
    differences = np.random.default_rng(3).gamma(2.0, 0.1, 150) - 0.1
    ours = bootstrap_ci(differences, seed=1)
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    assert ours == pytest.approx(theirs, abs=0.002)


def test_interval_has_the_width_of_the_normal_one_for_many_items() -> None:
    differences = np.random.default_rng(0).normal(0.2, 0.3, 4000)
    low, high = bootstrap_ci(differences)
    half = 1.96 * differences.std() / np.sqrt(4000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)
    assert (high + low) / 2 == pytest.approx(differences.mean(), abs=0.001)


def test_interval_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    differences = np.random.default_rng(0).normal(size=50)
    assert bootstrap_ci(differences, 5) == bootstrap_ci(differences, 5) != bootstrap_ci(differences, 6)


def test_interval_is_paired_so_a_constant_gain_has_no_width() -> None:
    before = np.random.default_rng(0).random(40)
    made = figures(before, before + 0.25)
    assert made["delta"] == pytest.approx(0.25)
    assert made["ci95"] == pytest.approx([0.25, 0.25])


def test_figures_of_no_item_are_none_and_its_interval_is_refused() -> None:
    assert figures(np.array([]), np.array([])) == {"before": None, "after": None, "delta": None, "ci95": None}
    with pytest.raises(ValueError, match="no items"):
        bootstrap_ci(np.array([]))


def test_summary_averages_the_edits_of_an_item_first_and_splits_by_task() -> None:
    before = [row("a", 0, 0.0), row("a", 1, 0.2), row("b", 0, 0.5, task="remove"), row("b", 1, 0.7, task="remove")]
    after = [row("a", 0, 0.4), row("a", 1, 0.6), row("b", 0, 0.5, task="remove"), row("b", 1, 0.9, task="remove")]
    made = summarise(before, after, seed=7, train_seconds=12.5)
    assert list(made) == ["items", "train_seconds", "seed", "oracle", "judge", "judge_left_out", "by_task"]
    assert (made["items"], made["train_seconds"], made["seed"]) == (2, 12.5, 7)
    assert made["oracle"]["before"] == pytest.approx((0.1 + 0.6) / 2)
    assert made["oracle"]["after"] == pytest.approx((0.5 + 0.7) / 2)
    assert made["oracle"]["delta"] == pytest.approx(0.25)
    assert made["oracle"]["ci95"] == pytest.approx([0.1, 0.4])  # two items: both ends are the items themselves
    assert made["by_task"]["add"]["oracle"]["delta"] == pytest.approx(0.4)
    assert made["by_task"]["remove"]["oracle"]["delta"] == pytest.approx(0.1)
    assert [made["by_task"][task]["n"] for task in ("add", "remove")] == [1, 1]


def test_item_without_a_reward_is_left_out_of_the_judges_figures_and_counted_never_zero() -> None:
    before = [row("a", 0, 0.2, judge=0.4), row("b", 0, 0.2, judge=0.9), row("c", 0, 0.2, judge=None)]
    after = [row("a", 0, 0.8, judge=0.6), row("b", 0, 0.8, judge=None), row("c", 0, 0.8, judge=0.9)]
    made = summarise(before, after, seed=0, train_seconds=1.0)
    assert made["judge_left_out"] == 2
    assert (made["judge"]["before"], made["judge"]["after"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert made["oracle"]["delta"] == pytest.approx(0.6)


def test_rows_of_different_items_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        summarise([row("a", 0, 0.1)], [row("b", 0, 0.1)], seed=0, train_seconds=1.0)
