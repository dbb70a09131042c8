"""Online Diffusion-DPO against the paper's formula in numpy, in float64; which pair is made; limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from editr1.algorithms.base import Edits, Rows
from editr1.algorithms.dpo import DPO
from tests.algorithms.float64 import Array, Policies, batch, finite_differences, flow_matching, gradient

NAN = math.nan


def by_the_formula(rows: Rows, velocities: Policies, target: Array, dpo: DPO) -> dict[str, float]:
    """Equation 14 of the paper with velocities, divided by beta; rows are winner, loser, winner, loser."""
    error = {name: ((velocities[name].numpy() - target) ** 2).mean(axis=(1, 2)) for name in ("default", "reference")}
    inside = [
        (error["default"][w] - error["reference"][w]) - (error["default"][w + 1] - error["reference"][w + 1])
        for w in range(0, len(rows), 2)
    ]
    lost = [math.log1p(math.exp(dpo.beta / 2 * value)) for value in inside]
    kl = float(((velocities["default"] - velocities["reference"]).numpy() ** 2).mean())
    preference = sum(lost) / len(lost) / dpo.beta
    decided = sum(value < 0 for value in inside) / len(inside)
    return {"loss": preference + dpo.kl * kl, "preference": preference, "decided": decided, "kl": kl}


def loss_gradient(dpo: DPO, rows: Rows, velocities: Policies) -> Tensor:
    return gradient(lambda policies: dpo.loss(rows, policies)[0], velocities)


@given(st.integers(0, 999), st.floats(0.01, 100), st.sampled_from([0.0, 0.3]))
@settings(max_examples=40, deadline=None)
def test_loss_and_parts_equal_the_formula(seed: int, beta: float, kl: float) -> None:
    dpo = DPO(beta=beta, kl=kl)
    rows, velocities, target = batch(seed, 2, apart=0.5)
    loss, parts = dpo.loss(rows, velocities)
    numbers = {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}
    assert numbers == pytest.approx(by_the_formula(rows, velocities, target, dpo), rel=1e-9, abs=1e-12)


def test_gradient_equals_finite_differences() -> None:
    dpo = DPO(beta=3.0, kl=0.3)
    rows, velocities, target = batch(3, 2, apart=0.3)
    slopes = finite_differences(lambda policies: by_the_formula(rows, policies, target, dpo)["loss"], velocities)
    torch.testing.assert_close(loss_gradient(dpo, rows, velocities), slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("beta", "apart"), [(2000.0, 0.0), (1e-9, 1.0)])
def test_at_the_reference_and_for_a_small_beta_the_winner_is_pulled_as_the_loser_is_pushed(
    beta: float, apart: float
) -> None:
    rows, velocities, target = batch(unit=2, apart=apart)
    expected = flow_matching(np.array([0.5, -0.5] * 2), target, velocities)  # a mean over rows: (e_w - e_l) / 4 a pair
    torch.testing.assert_close(loss_gradient(DPO(beta=beta), rows, velocities), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("advantages", "pair"),
    [
        ([0.1, NAN, 2.0, -1.0], [2, 3]),
        ([-1.0, 0.0, 0.0], [1, 0]),
        ([1.0, 1.0, -1.0, -1.0], [0, 2]),
        ([0.0, 0.0, 0.0], []),
        ([NAN, 0.3, NAN], []),
        ([NAN, NAN], []),
    ],
)
def test_the_pair_is_the_best_and_the_worst_edit_with_a_reward(advantages: list[float], pair: list[int]) -> None:
    dpo, values = DPO(), torch.tensor(advantages)
    assert dpo.choose(values) == pair
    group = Edits(torch.randn(len(values), 3, 2), values, torch.tensor([1.0, 0.6, 0.3]))
    rows = dpo.rows(group, torch.Generator().manual_seed(0))
    assert len(rows) == dpo.count(group) == len(pair) * 2
    assert torch.equal(rows.x0, group.latents[pair * 2])


def test_both_edits_of_a_pair_have_the_same_level_and_noise_and_stay_together() -> None:
    group = Edits(torch.randn(5, 3, 2).double(), torch.randn(5), torch.tensor([1.0, 0.6, 0.3]))
    rows = DPO(timesteps="uniform", timesteps_per_image=4).rows(group, torch.Generator().manual_seed(0))
    eps = rows.target + rows.x0
    assert torch.equal(rows.t[::2], rows.t[1::2]) and len(rows.t.unique()) == 4
    torch.testing.assert_close(eps[::2], eps[1::2], rtol=1e-4, atol=1e-5)
    assert not torch.equal(eps[0], eps[2])
    assert [(len(some), some.unit) for some in rows.split(5)] == [(4, 2), (4, 2)]
    assert [len(some) for some in rows.split(1)] == [2] * 4
