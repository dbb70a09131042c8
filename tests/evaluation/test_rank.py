"""Rank correlations against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from editr1.evaluation.rank import kendall, ranks, spearman


@pytest.mark.parametrize("levels", [3, 7, 1000])
def test_rank_correlations_equal_scipys(levels: int) -> None:
    rng = np.random.default_rng(levels)
    x, y = rng.integers(0, levels, 200) / 7, rng.integers(-1, 2, 200).astype(float)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    assert kendall(x, y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic, abs=1e-12)
    assert ranks(x) == pytest.approx(scipy.stats.rankdata(x))


def test_correlation_with_a_constant_is_none() -> None:
    for x in (np.ones(4), np.ones(0)):
        assert spearman(x, np.arange(len(x), dtype=float)) is None
        assert kendall(x, np.arange(len(x), dtype=float)) is None
