"""Mixed advantages against their formula in float64, with weights of one task and of several."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editr1.algorithms.advantages import Std
from editr1.algorithms.mixing import mix

VALUES = st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.125, 0.5, 0.625, 1.0]))


def by_hand(groups: list[np.ndarray], std: Std) -> list[np.ndarray]:
    """Rewards less the mean of their group, by the std of the step or the group; NaN where there is none."""
    everything = np.concatenate(groups)
    everything = everything[~np.isnan(everything)]
    advantages = []
    for group in groups:
        scored = group[~np.isnan(group)]
        spread = np.std(everything if std == "global" else scored) if len(scored) else 1.0
        advantages.append((group - scored.mean()) / max(spread, 1e-4) if len(scored) else group)
    return advantages


@st.composite
def steps(draw: Any) -> tuple[dict[str, list[list[float]]], dict[str, list[float]]]:
    count = draw(st.integers(1, 4))
    size = draw(st.integers(2, 4))
    parts = {
        name: [draw(st.lists(VALUES, min_size=size, max_size=size)) for _ in range(count)] for name in ("a", "b", "c")
    }
    weights = {name: draw(st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=count, max_size=count)) for name in parts}
    return parts, weights


@pytest.mark.parametrize("std", ["global", "group"])
@given(step=steps())
def test_a_group_is_mixed_by_the_weights_of_its_own_task(
    std: Std, step: tuple[dict[str, list[list[float]]], dict[str, list[float]]]
) -> None:
    parts, weights = step
    nothing = [math.nan] * len(parts["a"][0])
    counted = {
        name: [np.array(group if share else nothing) for group, share in zip(groups, weights[name], strict=True)]
        for name, groups in parts.items()
    }
    own = {name: by_hand(groups, std) for name, groups in counted.items()}
    mixed = []
    for number in range(len(parts["a"])):
        rows = np.stack([own[name][number] for name in own])
        shares = np.array([[weights[name][number]] for name in own]) * ~np.isnan(rows)
        total = shares.sum(axis=0)
        mean = (np.nan_to_num(rows) * shares).sum(axis=0) / np.where(total, total, 1)
        mixed.append(np.where(total > 0, mean, math.nan))
    expected = by_hand(mixed, std)
    tensors = {name: [torch.tensor(group, dtype=torch.float64) for group in groups] for name, groups in parts.items()}
    for one, other in zip(mix(tensors, weights, std), expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-9, atol=1e-9)


def test_one_weight_for_all_groups_is_the_same_for_each() -> None:
    parts = {"a": [torch.rand(4), torch.rand(4)], "b": [torch.rand(4), torch.rand(4)]}
    one, each = mix(parts, {"a": 2.0, "b": 0.5}), mix(parts, {"a": [2.0, 2.0], "b": [0.5, 0.5]})
    assert all(torch.equal(left, right) for left, right in zip(one, each, strict=True))


def test_a_reward_that_does_not_count_for_a_task_does_not_count_in_its_std() -> None:
    wild, calm = torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0.5, 0.6, 0.5, 0.6])
    steady = [torch.tensor([0.1, 0.2, 0.3, 0.4])] * 2
    left_out = mix({"a": [wild, calm], "b": steady}, {"a": [0.0, 1.0], "b": 1.0})
    missing = mix({"a": [torch.full((4,), math.nan), calm], "b": steady}, {"a": 1.0, "b": 1.0})
    assert all(torch.equal(left, right) for left, right in zip(left_out, missing, strict=True))
