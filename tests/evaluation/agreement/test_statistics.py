"""Intervals against scipy; calibration and distributions by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from editr1.evaluation.agreement import statistics
from editr1.evaluation.agreement.ties import RULES, PairScores, Units
from tests.evaluation.agreement.cases import pair


def test_interval_equals_scipys_percentile_bootstrap() -> None:
    right = (np.random.default_rng(1).random(300) < 0.7).astype(float)
    pairs = [pair(f"k{i}", "a") for i in range(300)]
    units = Units(right, np.arange(300), ("edit",) * 300)
    ours = statistics.bootstrap_interval(units, RULES["decided"], pairs)
    theirs = scipy.stats.bootstrap((right,), np.mean, method="percentile", n_resamples=9999, rng=0).confidence_interval
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.012)
    assert ours == statistics.bootstrap_interval(units, RULES["decided"], pairs)


def test_interval_over_groups_is_wider_where_pairs_repeat_each_other() -> None:
    right = np.repeat((np.random.default_rng(1).random(60) < 0.7).astype(float), 5)
    units = Units(right, np.arange(300), ("edit",) * 300)
    widths = []
    for grouped in (False, True):
        pairs = [pair(f"k{i}", "a", group=f"g{i // 5}" if grouped else "") for i in range(300)]
        low, high = statistics.bootstrap_interval(units, RULES["decided"], pairs) or (0, 0)
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(5**0.5, rel=0.15)


def test_editscore_averages_over_types_of_the_overall_dimension() -> None:
    rows = [("x", "overall", 1), ("x", "overall", 1), ("x", "overall", 0), ("y", "overall", 1), ("y", "consistency", 0)]
    pairs = [pair(f"k{i}", "a", task=task, dimension=dim) for i, (task, dim, _) in enumerate(rows)]
    scores = np.array([float(right) for *_, right in rows])
    units = RULES["editscore"].apply(PairScores(pairs, scores, np.full(5, 0.5)))
    assert statistics.accuracy(units, RULES["editscore"], pairs) == pytest.approx((2 / 3 + 1) / 2)
    found = statistics.by_dimension(units, RULES["editscore"], pairs)
    assert found["overall"]["accuracy"] == pytest.approx((2 / 3 + 1) / 2) and found["consistency"]["accuracy"] == 0


def test_calibration_bins_hold_equal_differences_together_and_equal_scores_count_half() -> None:
    difference = np.array([0, 0, 0, 0.2, 0.2, -0.2, 0.5, -0.5, np.nan, 0.9])
    label = np.array([1, -1, 1, 1, 1, 1, 1, -1, 1, 0])
    bins = statistics.calibration(difference, label, bins=3)
    assert sum(row["pairs"] for row in bins) == 8
    shown = {round(row["difference"], 6): (row["right"], row["pairs"]) for row in bins}
    assert shown == {0.0: (0.5, 3), 0.2: (2 / 3, 3), 0.5: (1.0, 2)}
    assert statistics.calibration(np.array([np.nan]), np.array([1])) == []


def test_distribution_counts_fifths() -> None:
    scores = np.array([0, 0.1, 0.2, 0.5, 1.0, np.nan])
    assert statistics.distribution(scores) == pytest.approx([0.4, 0.2, 0.2, 0, 0.2])
    assert statistics.distribution(np.array([1.0, 4.0, 2.5]), 1, 4) == pytest.approx([1 / 3, 0, 1 / 3, 0, 1 / 3])
    assert statistics.distribution(np.arange(6) / 5) == pytest.approx([1 / 6] * 4 + [1 / 3])  # 3 / 5 stands above 0.6
    assert statistics.distribution(np.array([np.nan])) == [0.0] * 5
