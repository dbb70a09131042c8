"""Advantages and the group filter against numpy, and what must hold for any rewards."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from editr1.algorithms.advantages import STD_MIN, Filter, Std, filter_groups, normalise

NAN = float("nan")
MODES = get_args(Filter)
STDS = get_args(Std)

reward = st.floats(0, 1, width=32)
group = st.lists(st.one_of(reward, st.just(NAN)), min_size=1, max_size=12).map(torch.tensor)
groups = st.lists(group, min_size=1, max_size=6)


def _tensors(*rewards: list[float]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in rewards]


def test_group_std_equals_numpy_and_leaves_out_the_unscored() -> None:
    rewards = _tensors([0.1, 0.4, NAN, 0.7], [0.9, 0.2, 0.3, 0.3])
    for got, row in zip(normalise(rewards, "group"), rewards, strict=True):
        expected = (row.numpy() - np.nanmean(row.numpy())) / np.nanstd(row.numpy())
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_global_std_is_over_every_reward_of_the_step() -> None:
    rewards = _tensors([0.1, 0.4, NAN, 0.7], [0.9, 0.2], [1.0, 1.0, 1.0])
    std = float(np.std([0.1, 0.4, 0.7, 0.9, 0.2, 1.0, 1.0, 1.0]))
    expected = _tensors([-0.3, 0.0, NAN, 0.3], [0.35, -0.35], [0.0, 0.0, 0.0])
    for got, centred in zip(normalise(rewards), expected, strict=True):
        np.testing.assert_allclose(got, centred / std, rtol=1e-12, atol=1e-15)


def test_std_is_the_populations() -> None:
    assert normalise(_tensors([0.0, 1.0]), "group")[0].tolist() == [-1.0, 1.0]  # the sample's would give 0.7071


def test_rewards_closer_than_the_floor_are_not_blown_up() -> None:
    (got,) = normalise(_tensors([0.5, 0.5 + 1e-6]), "group")
    assert got.tolist() == pytest.approx([-5e-7 / STD_MIN, 5e-7 / STD_MIN])


def test_no_groups_give_no_advantages() -> None:
    assert normalise([]) == []


@pytest.mark.parametrize("std", STDS)
@given(step=groups)
def test_advantages_are_finite_centred_and_nan_exactly_where_unscored(std: Std, step: list[Tensor]) -> None:
    for got, rewards in zip(normalise(step, std), step, strict=True):
        assert got.dtype == rewards.dtype
        assert torch.equal(got.isnan(), rewards.isnan())
        scored = got[~got.isnan()]
        assert scored.isfinite().all()
        if len(scored):
            assert float(scored.double().mean()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("std", STDS)
@given(value=reward, size=st.integers(1, 12), unscored=st.integers(0, 3), others=groups)
def test_equal_rewards_get_advantages_of_exactly_zero(
    std: Std, value: float, size: int, unscored: int, others: list[Tensor]
) -> None:
    same = torch.tensor([value] * size + [NAN] * unscored)
    got = normalise([same, *others], std)[0]
    assert got[:size].tolist() == [0.0] * size
    assert got[size:].isnan().all()


@given(step=groups)
def test_group_std_gives_unit_spread_and_keeps_the_order(step: list[Tensor]) -> None:
    for got, rewards in zip(normalise(step, "group"), step, strict=True):
        scored, values = got[~got.isnan()].double(), rewards[~rewards.isnan()].double()
        if len(values) and values.std(correction=0) > STD_MIN:
            assert float(scored.std(correction=0)) == pytest.approx(1, rel=1e-5)
        assert (scored[values.argsort()].diff() >= 0).all()


@given(step=groups, scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_scale_and_shift_of_the_rewards_change_nothing_above_the_floor(
    step: list[Tensor], scale: float, shift: float
) -> None:
    step = [rewards.double() for rewards in step]
    spread = torch.cat([rewards[~rewards.isnan()] for rewards in step])
    assume(len(spread) and min(1, scale) * spread.std(correction=0) > 1e-3)
    moved = [rewards * scale + shift for rewards in step]
    torch.testing.assert_close(normalise(moved), normalise(step), equal_nan=True, rtol=1e-8, atol=1e-8)


CASES = {  # name: (rewards, reason by mode)
    "high and agreed": ([0.95, 0.96, 0.97, 0.96], {"paper": "agree_and_high", "released": "no_spread"}),
    "high, with spread": ([1.0, 1.0, 1.0, 0.8], {"released": "high"}),
    "low and agreed": ([0.1, 0.1, 0.1, 0.12], {"released": "no_spread"}),
    "worth training on": ([0.1, 0.5, 0.9, 0.4], {}),
    "most unscored": ([0.1, NAN, NAN, NAN], {"paper": "no_reward", "released": "no_reward", "off": "no_reward"}),
    "none scored": ([NAN, NAN], {"paper": "no_reward", "released": "no_reward", "off": "no_reward"}),
    "half scored": ([0.1, 0.9, NAN, NAN], {}),
    "one edit": ([0.4], {"released": "no_spread"}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_groups_are_dropped_for_the_reason_that_the_mode_names(case: str, mode: Filter) -> None:
    rewards, reasons = CASES[case]
    assert filter_groups(_tensors(rewards), mode) == [reasons.get(mode)]


def test_thresholds_are_strict_where_the_rules_are_strict() -> None:
    at_both = _tensors([0.25, 0.75])  # mean 0.5, std 0.25, exactly
    assert filter_groups(at_both, "paper", tau_mu=0.5, tau_sigma=0.3) == [None]
    assert filter_groups(at_both, "paper", tau_mu=0.4, tau_sigma=0.25) == [None]
    assert filter_groups(at_both, "paper", tau_mu=0.4, tau_sigma=0.3) == ["agree_and_high"]
    assert filter_groups(at_both, "released", tau_mu=0.6, tau_sigma=0.25) == ["no_spread"]
    assert filter_groups(at_both, "released", tau_mu=0.5, tau_sigma=0.2) == ["high"]
    assert filter_groups(at_both, "released", tau_mu=0.6, tau_sigma=0.2) == [None]


def test_paper_is_the_default_with_its_thresholds() -> None:
    step = _tensors([0.93, 0.93], [0.89, 0.89], [1.0, 0.86])
    assert filter_groups(step) == ["agree_and_high", None, None]


@given(step=groups, tau_mu=st.floats(0, 1), tau_sigma=st.floats(0, 0.5))
def test_the_rules_equal_numpy_and_released_drops_whatever_paper_drops(
    step: list[Tensor], tau_mu: float, tau_sigma: float
) -> None:
    reasons = {mode: filter_groups(step, mode, tau_mu, tau_sigma) for mode in MODES}
    for i, rewards in enumerate(step):
        scored = rewards[~rewards.isnan()].double()
        if len(scored) < len(rewards) / 2:
            assert [reasons[mode][i] for mode in MODES] == ["no_reward"] * 3
            continue
        mean, std = float(scored.mean()), float(scored.std(correction=0))
        assert (reasons["paper"][i] is not None) == (std < tau_sigma and mean > tau_mu)
        assert (reasons["released"][i] is None) == (std > tau_sigma and mean < tau_mu)
        assert reasons["off"][i] is None
        assert reasons["paper"][i] is None or reasons["released"][i] is not None
