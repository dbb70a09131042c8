"""The loss of group preferences against the logistic function in numpy, in float64, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from editr1.algorithms.base import Rows
from editr1.algorithms.dgpo import DGPO
from tests.algorithms.float64 import Array, Policies, batch, finite_differences, flow_matching, gradient


def by_the_formula(rows: Rows, velocities: Policies, target: Array, dgpo: DGPO) -> dict[str, float]:
    """Loss and parts by the two halves of a group: P(G+ over G-) = exp(R+) / (exp(R+) + exp(R-))."""
    n, lost, right = rows.unit, 0.0, 0
    v, reference = velocities["default"].numpy(), velocities["reference"].numpy()
    for first in range(0, len(rows), n):
        rewards = {True: 0.0, False: 0.0}
        for i in range(first, first + n):
            advantage = np.clip(rows.advantages[i].item(), -dgpo.adv_clip, dgpo.adv_clip)
            likelier = ((reference[i] - target[i]) ** 2).mean() - ((v[i] - target[i]) ** 2).mean()
            rewards[advantage > 0] += abs(advantage) * dgpo.beta * likelier / n
        lost += np.logaddexp(rewards[True], rewards[False]) - rewards[True]
        right += rewards[True] > rewards[False]
    units = len(rows) / n
    kl = float(((v - reference) ** 2).mean())
    preference = lost / units / dgpo.beta
    return {"loss": preference + dgpo.kl * kl, "preference": preference, "decided": right / units, "kl": kl}


def loss_gradient(dgpo: DGPO, rows: Rows, velocities: Policies) -> Tensor:
    return gradient(lambda policies: dgpo.loss(rows, policies)[0], velocities)


@given(st.integers(0, 999), st.integers(2, 6), st.floats(0.01, 100), st.floats(0.01, 2))
@settings(max_examples=40, deadline=None)
def test_loss_and_parts_equal_the_formula(seed: int, unit: int, beta: float, kl: float) -> None:
    dgpo = DGPO(beta=beta, kl=kl)
    rows, velocities, target = batch(seed, unit, apart=0.5)
    loss, parts = dgpo.loss(rows, velocities)
    numbers = {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}
    assert numbers == pytest.approx(by_the_formula(rows, velocities, target, dgpo), rel=1e-9, abs=1e-12)


def test_gradient_equals_finite_differences() -> None:
    dgpo = DGPO(beta=3.0, kl=0.3)
    rows, velocities, target = batch(3, apart=0.3)
    slopes = finite_differences(lambda policies: by_the_formula(rows, policies, target, dgpo)["loss"], velocities)
    torch.testing.assert_close(loss_gradient(dgpo, rows, velocities), slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("beta", "apart"), [(1.0, 0.0), (1000.0, 0.0), (1e-9, 1.0)])
def test_at_the_reference_and_for_a_small_beta_half_the_advantage_weighs_flow_matching(
    beta: float, apart: float
) -> None:
    rows, velocities, target = batch(apart=apart)
    expected = flow_matching(np.clip(rows.advantages.numpy(), -5, 5) / 2, target, velocities)
    torch.testing.assert_close(loss_gradient(DGPO(beta=beta, kl=0), rows, velocities), expected, rtol=1e-6, atol=1e-8)


def test_equal_rewards_give_no_gradient_and_the_loss_of_a_coin() -> None:
    rows, velocities, _ = batch(equal=True)
    assert DGPO(kl=0, beta=2.0).loss(rows, velocities)[0].item() == pytest.approx(math.log(2) / 2)
    assert not loss_gradient(DGPO(kl=0), rows, velocities).any()


def test_a_decided_group_has_no_gradient_and_a_wrong_one_the_whole() -> None:
    rows, _, target = batch(unit=2)
    rows = Rows(rows.x0, rows.x_t, rows.t, torch.tensor([1.0, -1.0] * 2, dtype=torch.float64), unit=2)
    far, near = torch.from_numpy(target) + 9, torch.from_numpy(target) + 0.1
    good, bad = torch.stack([near[0], far[1], near[2], far[3]]), torch.stack([far[0], near[1], far[2], near[3]])
    for v, weight in ((good, 0.0), (bad, 1.0)):
        policies = {"default": v, "reference": torch.from_numpy(target) + 3}
        expected = flow_matching(weight * rows.advantages.numpy(), target, policies)
        torch.testing.assert_close(loss_gradient(DGPO(kl=0), rows, policies), expected)


def test_the_reference_is_always_asked() -> None:
    assert DGPO(kl=0).asks(0) == DGPO(kl=1).asks(9) == ("reference",)
