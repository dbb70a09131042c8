"""The AWM loss against numpy written from the formula, in float64, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from editr1.algorithms.awm import AWM
from editr1.algorithms.base import Rows
from tests.algorithms.float64 import finite_differences

B, N, C = 5, 3, 4
Array = NDArray[np.float64]


def batch(seed: int = 0, apart: float = 1.0) -> tuple[Rows, dict[str, Tensor], Array]:
    """Float64 rows, velocities of three policies that are `apart` from each other, and the noise eps."""
    draw = np.random.default_rng(seed)
    x0, eps, v, old, reference = draw.standard_normal((5, B, N, C))
    t, advantages = draw.uniform(0.05, 1, B), draw.uniform(-8, 8, B)
    x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
    velocities = {"default": v, "old": v + apart * old, "reference": reference}
    rows = Rows(*map(torch.from_numpy, (x0, x_t, t, advantages)))
    return rows, {name: torch.from_numpy(value) for name, value in velocities.items()}, eps


def by_the_formula(rows: Rows, velocities: dict[str, Tensor], eps: Array, awm: AWM) -> dict[str, float]:
    """Loss and parts in plain numpy, row by row."""
    sums = dict.fromkeys(("loss", *awm.parts), 0.0)
    for i in range(B):
        v, old, reference = (velocities[name][i].detach().numpy() for name in ("default", "old", "reference"))
        target = eps[i] - rows.x0[i].numpy()
        advantage = np.clip(rows.advantages[i].item(), -awm.adv_clip, awm.adv_clip) / awm.adv_clip
        ratio = np.exp(((old - target) ** 2).mean() - ((v - target) ** 2).mean())
        clipped = np.clip(ratio, 1 - awm.clip_range, 1 + awm.clip_range)
        policy = -min(advantage * ratio, advantage * clipped)
        kl, kl_old = ((v - reference) ** 2).mean(), ((v - old) ** 2).mean()
        parts = {"policy": policy, "clipped": ratio != clipped, "kl": kl, "kl_old": kl_old}
        for name, value in {"loss": policy + awm.kl * kl + awm.kl_old * kl_old, **parts}.items():
            sums[name] += float(value) / B
    return sums


@given(seed=st.integers(0, 999), clip=st.floats(0.05, 1.5), kl=st.floats(0.01, 2), kl_old=st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_loss_and_parts_equal_the_formula(seed: int, clip: float, kl: float, kl_old: float) -> None:
    awm = AWM(clip_range=clip, kl=kl, kl_old=kl_old)
    rows, velocities, eps = batch(seed)
    loss, parts = awm.loss(rows, velocities)
    numbers = {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}
    assert numbers == pytest.approx(by_the_formula(rows, velocities, eps, awm), rel=1e-9)


def test_gradient_equals_finite_differences() -> None:
    awm = AWM(clip_range=0.4, kl=0.3, kl_old=0.2)
    rows, velocities, eps = batch(3, apart=0.3)
    velocities["default"].requires_grad_()
    (gradient,) = torch.autograd.grad(awm.loss(rows, velocities)[0], velocities["default"])
    slopes = finite_differences(lambda own: by_the_formula(rows, own, eps, awm)["loss"], velocities)
    assert gradient.numpy() == pytest.approx(slopes.numpy(), rel=1e-5, abs=1e-8)


def test_at_the_old_policy_the_step_is_flow_matching_weighted_by_the_advantage() -> None:
    awm = AWM(kl=0)
    rows, velocities, eps = batch(apart=0.0)
    velocities["default"].requires_grad_()
    loss, parts = awm.loss(rows, velocities)
    (gradient,) = torch.autograd.grad(loss, velocities["default"])
    advantages = rows.advantages.clamp(-5, 5) / 5
    assert loss.item() == pytest.approx(-advantages.mean().item()) and parts["clipped"].item() == 0
    flow_matching = (velocities["default"] - torch.from_numpy(eps) + rows.x0).square().mean(dim=(1, 2))
    (expected,) = torch.autograd.grad((advantages * flow_matching).mean(), velocities["default"])
    torch.testing.assert_close(gradient, expected)


def test_a_ratio_outside_the_clip_gives_no_gradient_outward() -> None:
    rows, _, _ = batch()
    toward = rows.target  # the best velocity there is: its ratio is far above 1
    for sign, moves in ((1.0, False), (-1.0, True)):
        v = toward.clone().requires_grad_()
        good = Rows(rows.x0, rows.x_t, rows.t, torch.full((B,), sign * 5.0, dtype=torch.float64))
        shifted = {"default": v, "old": toward + 2.0, "reference": toward}
        loss, parts = AWM(kl=0, kl_old=0, clip_range=0.2).loss(good, {**shifted, "default": v + 0.1})
        (gradient,) = torch.autograd.grad(loss, v)
        assert parts["clipped"].item() == 1
        assert bool(gradient.any()) == moves  # a bad edit that became likelier is still pushed away


def test_the_reference_is_asked_only_if_its_distance_has_a_weight() -> None:
    rows, velocities, _ = batch()
    del velocities["reference"]
    assert AWM(kl=0).loss(rows, velocities)[1]["kl"].item() == 0
    assert (AWM(kl=0).asks(9), AWM(kl=0.1).asks(9)) == (("old",), ("old", "reference"))
