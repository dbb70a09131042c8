"""Rejection finetuning: which edits are accepted, and flow matching on them, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from editr1.algorithms.base import Edits, Rows
from editr1.algorithms.rft import RFT
from tests.algorithms.float64 import Array, Policies, batch, finite_differences, flow_matching, gradient

NAN = math.nan


def by_the_formula(velocities: Policies, target: Array, rft: RFT) -> float:
    v = velocities["default"].numpy()
    return float(((v - target) ** 2).mean() + rft.kl * ((v - velocities["reference"].numpy()) ** 2).mean())


def test_loss_parts_and_gradient_equal_the_formula_and_finite_differences() -> None:
    rft = RFT(kl=0.3)
    rows, velocities, target = batch(1, 3)
    loss, parts = rft.loss(rows, velocities)
    assert loss.item() == pytest.approx(by_the_formula(velocities, target, rft), rel=1e-12)
    assert (parts["error"] + 0.3 * parts["kl"]).item() == pytest.approx(loss.item(), rel=1e-12)
    slopes = finite_differences(lambda policies: by_the_formula(policies, target, rft), velocities)
    torch.testing.assert_close(gradient(lambda p: rft.loss(rows, p)[0], velocities), slopes, rtol=1e-5, atol=1e-8)


def test_without_the_distance_it_is_flow_matching_and_asks_no_other_policy() -> None:
    rows, velocities, target = batch(1, 3)
    alone = {"default": velocities["default"]}
    expected = flow_matching(np.ones(len(rows)), target, velocities)
    torch.testing.assert_close(gradient(lambda policies: RFT(kl=0).loss(rows, policies)[0], alone), expected)
    assert RFT(kl=0).asks(0) == () and RFT().asks(0) == ("reference",)


@pytest.mark.parametrize(
    ("advantages", "share", "accepted"),
    [
        ([0.5, NAN, -1.0, 0.0, 2.0], 1.0, [0, 4]),
        ([0.5, NAN, -1.0, 0.0, 2.0], 0.01, [4]),
        ([0.5, 0.4, -3.0, 0.3, 2.0], 0.5, [0, 4]),
        ([0.0, 0.0], 1.0, []),
        ([NAN, NAN], 1.0, []),
    ],
)
def test_edits_better_than_their_group_are_accepted(advantages: list[float], share: float, accepted: list[int]) -> None:
    group = Edits(torch.randn(len(advantages), 3, 2), torch.tensor(advantages), torch.tensor([1.0, 0.6, 0.3]))
    rft = RFT(informative=share)
    rows: Rows = rft.rows(group, torch.Generator().manual_seed(0))
    assert len(rows) == rft.count(group) == 2 * len(accepted)
    assert torch.equal(rows.x0, group.latents[accepted].repeat_interleave(2, dim=0))
