"""The CRD loss against numpy over pairs of edits, in float64, and its limits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from editr1.algorithms.base import Edits, Rows
from editr1.algorithms.crd import CRD
from tests.algorithms.float64 import Array, Policies, batch, finite_differences, gradient


def by_pairs(rows: Rows, velocities: Policies, target: Array, crd: CRD, w: Array) -> dict[str, float]:
    """Loss and parts without the mean of a group: a variance is half the mean of (x_i - x_j)^2 over all pairs.

    `w` are the weights of the trained policy's errors, which have no gradient.
    """
    n, off = rows.unit, velocities["old"].numpy() - target
    e = ((velocities["default"].numpy() - target) ** 2).mean(axis=(1, 2)) / w
    e_old = (off**2).mean(axis=(1, 2)) / np.abs(off).mean(axis=(1, 2))
    a = np.clip(rows.advantages.numpy() / crd.adv_clip, -1, 1) / 2 + 0.5
    x = (crd.beta * (e_old - e) - a).reshape(-1, n)
    pairs = [(unit[i] - unit[j]) ** 2 / (2 * n * n) for unit in x for i, j in product(range(n), repeat=2)]
    matching = float(sum(pairs) / len(x))
    squares = ((velocities["default"] - velocities["reference"]).numpy() ** 2).mean(axis=(1, 2))
    kl = float((squares * (a if crd.adaptive_kl else 1)).mean())
    return {"loss": crd.adv_clip / crd.beta * matching + crd.kl * kl, "matching": matching, "kl": kl}


def mean_error(velocities: Policies, target: Array) -> Array:
    return np.asarray(np.abs(velocities["default"].numpy() - target).mean(axis=(1, 2)))


def prepared(crd: CRD, rows: Rows, velocities: Policies) -> tuple[Rows, Policies]:
    """With the weights that `CRD.rows` would give, and the reference where it is asked."""
    weights = crd.kl_weights(rows.advantages, torch.Generator())
    if weights is None:
        return rows, velocities
    weighted = Rows(rows.x0, rows.x_t, rows.t, rows.advantages, weights, unit=rows.unit)
    return weighted, {**velocities, "reference": velocities["reference"][weights > 0]}


@given(st.integers(0, 999), st.integers(2, 5), st.floats(0.1, 3), st.floats(0.01, 2), st.booleans())
@settings(max_examples=40, deadline=None)
def test_loss_and_parts_equal_the_formula(seed: int, unit: int, beta: float, kl: float, adaptive: bool) -> None:
    crd = CRD(beta=beta, kl=kl, adaptive_kl=adaptive)
    rows, velocities, target = batch(seed, unit)
    loss, parts = crd.loss(*prepared(crd, rows, velocities))
    numbers = {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}
    expected = by_pairs(rows, velocities, target, crd, mean_error(velocities, target))
    assert numbers == pytest.approx(expected, rel=1e-9)


def test_gradient_equals_finite_differences_with_the_weights_of_errors_held() -> None:
    crd = CRD(beta=0.7, kl=0.3, adaptive_kl=False)
    rows, velocities, target = batch(3, apart=0.3)
    w = mean_error(velocities, target)
    slopes = finite_differences(lambda policies: by_pairs(rows, policies, target, crd, w)["loss"], velocities)
    torch.testing.assert_close(loss_gradient(crd, rows, velocities), slopes, rtol=1e-5, atol=1e-8)


def loss_gradient(crd: CRD, rows: Rows, velocities: Policies) -> Tensor:
    return gradient(lambda policies: crd.loss(rows, policies)[0], velocities)


def advantage_weighted(rows: Rows, velocities: Policies, target: Array) -> Tensor:
    """The gradient of mean_i (A_i - mean A) |v - target|^2 / w_i with clipped A, in closed form."""
    a = np.clip(rows.advantages.numpy(), -5, 5).reshape(-1, rows.unit)
    weights = (a - a.mean(axis=1, keepdims=True)).ravel() / mean_error(velocities, target)
    v = velocities["default"].numpy()
    return torch.from_numpy(2 * weights[:, None, None] * (v - target) / v.size)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_at_the_old_policy_the_step_is_flow_matching_weighted_by_the_advantage(beta: float) -> None:
    rows, velocities, target = batch(apart=0.0)
    expected = advantage_weighted(rows, velocities, target)
    torch.testing.assert_close(loss_gradient(CRD(beta=beta, kl=0), rows, velocities), expected)


def test_so_it_is_for_a_small_beta_wherever_the_policy_is() -> None:
    rows, velocities, target = batch(apart=1.0)
    expected = advantage_weighted(rows, velocities, target)
    torch.testing.assert_close(loss_gradient(CRD(beta=1e-8, kl=0), rows, velocities), expected, rtol=1e-6, atol=1e-7)


def test_equal_rewards_give_no_gradient_at_the_old_policy() -> None:
    rows, velocities, _ = batch(apart=0.0, equal=True)
    assert not loss_gradient(CRD(kl=0), rows, velocities).any()


def test_a_policy_whose_implicit_rewards_are_the_wanted_ones_up_to_a_constant_stays() -> None:
    """v_old is found for which R_i = a_i / beta + 7: the loss is at its least."""
    crd = CRD(kl=0, beta=0.5)
    rows, velocities, target = batch(2)
    off = velocities["default"].numpy() - target
    e = (off**2).mean(axis=(1, 2)) / np.abs(off).mean(axis=(1, 2))
    wanted = (np.clip(rows.advantages.numpy() / 5, -1, 1) / 2 + 0.5) / crd.beta + 7
    old = torch.from_numpy(target + off * ((e + wanted) / e)[:, None, None])  # e grows with the error, linearly
    loss, _ = crd.loss(rows, {**velocities, "old": old})
    assert loss.item() == pytest.approx(0, abs=1e-24)
    assert loss_gradient(crd, rows, {**velocities, "old": old}).abs().max() < 1e-12


def test_the_worst_edits_need_no_reference_and_a_drawn_share_keeps_its_expectation() -> None:
    advantages = torch.tensor([-9.0, 0.0, 5.0, 1.0])
    group = Edits(torch.randn(4, 3, 2), advantages, torch.tensor([1.0, 0.5]))
    rows = CRD(timesteps_per_image=2, kl=0.1).rows(group, torch.Generator().manual_seed(0))
    assert rows.kl_weights is not None and rows.kl_weights.tolist() == pytest.approx([0.0, 0.5, 1.0, 0.6] * 2)
    assert len(rows.compared) == 6
    drawn = CRD(kl_share=0.5, kl=0.1).kl_weights(advantages.repeat(2), torch.Generator().manual_seed(0))
    assert drawn is not None and {*drawn.tolist()} <= {0.0, 1.0, 2.0, *(2 * rows.kl_weights).tolist()}
    assert CRD(kl=0).kl_weights(advantages, torch.Generator()) is None
    assert CRD(adaptive_kl=False).kl_weights(advantages, torch.Generator()) is None
    assert (CRD(kl=0).asks(9), CRD().asks(9)) == (("old",), ("old", "reference"))
