"""The GRPO loss against torch.distributions, in float64, its gradient, its limits, and the steps that it trains on."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from editr1.algorithms.base import Edits
from editr1.algorithms.grpo import GRPO
from editr1.algorithms.noise import StepNoise
from editr1.algorithms.transitions import Transitions
from tests.algorithms.float64 import finite_differences

B, G, S, N, C = 5, 4, 6, 3, 4
NAMES = ("loss", *GRPO.parts)


def batch(seed: int = 0, apart: float = 1e-3) -> tuple[Transitions, dict[str, Tensor]]:
    """Float64 steps that the old policy made, and velocities of three policies that are `apart` from each other."""
    draw = np.random.default_rng(seed)
    x0, x_t, z, old, away, reference = (torch.from_numpy(draw.standard_normal((B, N, C))) for _ in range(6))
    numbers = torch.from_numpy(draw.uniform((0.7, -0.4, 0.1), (1.1, -0.1, 0.6), (B, 3)))
    a, b, std = numbers[:, :, None, None].unbind(dim=1)
    t, advantages = torch.from_numpy(draw.uniform(0.3, 1, B)), torch.from_numpy(draw.uniform(-8, 8, B))
    dt = torch.from_numpy(draw.uniform(0.05, 0.3, B))
    rows = Transitions(x0, x_t, t, advantages, x_next=a * x_t + b * old + std * z, numbers=numbers, dt=dt)
    return rows, {"default": old + apart * away, "old": old, "reference": reference}


def law(rows: Transitions, v: Tensor) -> Normal:
    """The distribution of x_next, by the definition of a step."""
    a, b, std = rows.numbers.T[:, :, None, None]
    return Normal(a * rows.x_t + b * v, std.expand_as(v))


def by_the_definition(rows: Transitions, velocities: dict[str, Tensor], grpo: GRPO) -> dict[str, float]:
    """Loss and parts from the laws of the steps, row by row."""
    now, old, reference = (law(rows, velocities[name]) for name in ("default", "old", "reference"))
    log_ratios = (now.log_prob(rows.x_next) - old.log_prob(rows.x_next)).mean(dim=(1, 2))
    if grpo.guard:  # as published: the bias is added, then all is scaled
        scale = now.stddev[:, 0, 0]
        bias = (now.mean - old.mean).square().mean(dim=(1, 2)) / (2 * scale**2)
        log_ratios = scale * (log_ratios + bias)
    sums = dict.fromkeys(NAMES, 0.0)
    for i, log_ratio in enumerate(log_ratios.tolist()):
        advantage = min(max(rows.advantages[i].item(), -grpo.adv_clip), grpo.adv_clip)
        ratio = math.exp(log_ratio)
        clipped = min(max(ratio, 1 - grpo.clip_range), 1 + grpo.clip_range)
        policy = -min(advantage * ratio, advantage * clipped) / (rows.dt[i].item() if grpo.guard else 1)
        kl = kl_divergence(now, reference)[i].mean().item()
        numbers = {"loss": policy + grpo.kl * kl, "policy": policy, "clipped": float(ratio != clipped), "kl": kl}
        sums = {name: sums[name] + numbers[name] / B for name in NAMES}
    return sums


@given(
    seed=st.integers(0, 999),
    apart=st.floats(1e-3, 1),
    clip=st.floats(1e-4, 0.3),
    kl=st.floats(0.01, 2),
    guard=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_loss_and_parts_equal_those_of_torchs_distributions(
    seed: int, apart: float, clip: float, kl: float, guard: bool
) -> None:
    grpo = GRPO(clip_range=clip, kl=kl, guard=guard)
    rows, velocities = batch(seed, apart)
    loss, parts = grpo.loss(rows, velocities)
    numbers = {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}
    assert numbers == pytest.approx(by_the_definition(rows, velocities, grpo), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("guard", [False, True])
def test_gradient_equals_finite_differences(guard: bool) -> None:
    grpo = GRPO(clip_range=0.01 if guard else 0.05, kl=0.3, guard=guard)
    rows, velocities = batch(3, apart=0.1)
    velocities["default"].requires_grad_()
    loss, parts = grpo.loss(rows, velocities)
    assert 0 < parts["clipped"] < 1
    (gradient,) = torch.autograd.grad(loss, velocities["default"])
    slopes = finite_differences(lambda own: by_the_definition(rows, own, grpo)["loss"], velocities)
    assert gradient.numpy() == pytest.approx(slopes.numpy(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("guard", [False, True])
def test_at_the_sampling_weights_the_ratio_is_exactly_1(guard: bool, dtype: torch.dtype) -> None:
    rows, velocities = batch(apart=0.0)
    cast: dict[str, Any] = {name: value.to(dtype) for name, value in vars(rows).items() if isinstance(value, Tensor)}
    rows = replace(rows, **cast)
    loss, parts = GRPO(kl=0, clip_range=1e-12, guard=guard).loss(rows, velocities)
    weights = 1 / rows.dt if guard else torch.ones(B, dtype=dtype)
    assert parts["clipped"].item() == 0
    assert torch.equal(loss, -(rows.advantages.clamp(-5, 5) * weights).mean())  # to the last bit


def test_the_first_step_on_policy_is_that_of_reinforce() -> None:
    rows, velocities = batch(apart=0.0)
    v = velocities["default"].requires_grad_()
    (gradient,) = torch.autograd.grad(GRPO(kl=0).loss(rows, velocities)[0], v)
    log_p = law(rows, v).log_prob(rows.x_next).mean(dim=(1, 2))
    (expected,) = torch.autograd.grad(-(rows.advantages.clamp(-5, 5) * log_p).mean(), v)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


def test_the_guards_first_step_weighs_a_step_neither_by_its_noise_nor_by_its_length() -> None:
    """Its gradient is -A z b / dt, and b / dt is near -1 where the noise is small."""
    rows, velocities = batch(apart=0.0)
    v = velocities["default"].requires_grad_()
    (gradient,) = torch.autograd.grad(GRPO(kl=0, guard=True).loss(rows, velocities)[0], v)
    z, weights = rows.drawn(velocities["old"]).detach(), rows.advantages.clamp(-5, 5) * rows.numbers[:, 1] / rows.dt
    torch.testing.assert_close(gradient, -weights[:, None, None] * z / (B * N * C))


def test_the_guards_log_ratio_has_the_mean_0_over_what_the_sampling_policy_draws() -> None:
    """Without it, the mean is minus the KL divergence of the two policies: E_old[log p - log p_old]."""
    rows, velocities = batch(apart=0.5)
    old = law(rows, velocities["old"])
    torch.manual_seed(0)
    means = []
    for _ in range(4000):
        z = torch.randn(B, N, C, dtype=torch.float64)
        x_next = old.mean + old.stddev * z
        log_ratio = law(rows, velocities["default"]).log_prob(x_next) - old.log_prob(x_next)
        guarded = rows.numbers[:, 1, None, None] * (velocities["default"] - velocities["old"]) * z
        means.append(torch.stack([log_ratio, guarded]))
    plain, without_bias = torch.stack(means).mean(dim=(0, 2, 3, 4)).tolist()
    kl = kl_divergence(old, law(rows, velocities["default"])).mean().item()
    assert plain == pytest.approx(-kl, rel=0.1) and abs(without_bias) < 0.02 * kl


def test_a_ratio_outside_the_clip_gives_no_gradient_outward() -> None:
    rows, velocities = batch()
    a, b, _ = rows.abstd
    likeliest = (rows.x_next - a * rows.x_t) / b
    for advantage, moves in ((5.0, False), (-5.0, True)):
        v = likeliest.clone().requires_grad_()
        some = Transitions(**{**vars(rows), "advantages": torch.full((B,), advantage, dtype=torch.float64)})
        loss, parts = GRPO(kl=0, clip_range=1e-4).loss(some, {**velocities, "default": v + 1e-3})
        (gradient,) = torch.autograd.grad(loss, v)
        assert parts["clipped"].item() == 1
        assert bool(gradient.any()) == moves  # a bad step that became likelier is still pushed away


def test_the_divergence_of_a_drawn_share_of_rows_is_estimated_without_bias() -> None:
    rows, velocities = batch()
    whole = GRPO(kl=0.1).loss(rows, velocities)[1]["kl"].item()
    estimates = []
    for i in range(B):
        weights = torch.zeros(B).index_fill(0, torch.tensor([i]), B)
        some = Transitions(**{**vars(rows), "kl_weights": weights})
        reference = velocities["reference"][i : i + 1]
        estimates.append(GRPO(kl=0.1).loss(some, {**velocities, "reference": reference})[1]["kl"].item())
    assert np.mean(estimates) == pytest.approx(whole)
    none = Transitions(**{**vars(rows), "kl_weights": torch.zeros(B)})
    without = {name: v for name, v in velocities.items() if name != "reference"}
    assert GRPO(kl=0.1).loss(none, without)[1]["kl"].item() == 0
    assert (GRPO(kl=0).asks(9), GRPO(kl=0.1).asks(9)) == (("old",), ("old", "reference"))


def recorded(noisy: range, advantages: tuple[float, ...] = (1.0, math.nan, -1.0, 0.5)) -> Edits:
    """Edits whose latents say where they are on the way: 100 * step + edit."""
    trajectory = (100 * torch.arange(S + 1)[:, None] + torch.arange(G))[:, :, None, None].expand(-1, -1, N, C).float()
    numbers = torch.arange(3.0 * S).reshape(S, 3) + 1
    numbers[[i for i in range(S) if i not in noisy], 2] = 0
    return Edits(trajectory[-1], torch.tensor(advantages), torch.linspace(1, 1 / S, S), trajectory, numbers)


def rows_of(grpo: GRPO, edits: Edits, seed: int = 0) -> Transitions:
    return grpo.rows(edits, torch.Generator().manual_seed(seed))


def test_rows_are_the_noisy_steps_of_the_scored_edits() -> None:
    grpo, edits = GRPO(window=2), recorded(range(1, 3))
    rows = rows_of(grpo, edits)
    assert len(rows) == grpo.count(edits) == 6
    assert rows.advantages.tolist() == [1, 1, -1, -1, 0.5, 0.5]
    assert sorted(rows.x_t[:, 0, 0].tolist()) == [100, 102, 103, 200, 202, 203]
    assert torch.equal(rows.x_next, rows.x_t + 100)
    steps = (rows.x_t[:, 0, 0] // 100).long()
    assert edits.transitions is not None and torch.equal(rows.numbers, edits.transitions[steps])
    torch.testing.assert_close(rows.t, edits.levels[steps])
    torch.testing.assert_close(rows.dt, torch.full((6,), 1 / S))
    assert torch.equal(rows[4:].x_next, rows.x_next[4:]) and len(rows[4:].numbers) == 2


@pytest.mark.parametrize("stratified", [False, True])
def test_fewer_levels_than_noisy_steps_are_drawn_equally_often(stratified: bool) -> None:
    grpo, counts = GRPO(timesteps_per_image=2, stratified=stratified), Counter[float]()
    for seed in range(300):
        steps = (rows_of(grpo, recorded(range(5)), seed).x_t[:, 0, 0] // 100).tolist()
        counts.update(steps)
        assert all(len({*steps[i : i + 2]}) == 2 for i in (0, 2, 4))
    assert counts.keys() == {0, 1, 2, 3, 4} and all(count == pytest.approx(360, rel=0.15) for count in counts.values())


def test_savings_leave_out_edits_and_reference_calls() -> None:
    rows = rows_of(GRPO(informative=0.67, kl_share=0.5, rescaled=True), recorded(range(5)))
    assert sorted({*(rows.x_t[:, 0, 0] % 100).tolist()}) == [0, 2] and len(rows) == 10
    assert rows.advantages.unique().tolist() == pytest.approx([-5 / 6, 5 / 6])  # 3 edits weigh 2.5, as these 2 do
    assert len(rows.compared) == 5 and isinstance(rows.compared, Transitions)


def windows(grpo: GRPO, steps: range, visited: int = S) -> list[StepNoise]:
    return [grpo.noise(step, visited, torch.Generator().manual_seed(step)) for step in steps]


def test_the_window_is_all_steps_but_the_last_or_drawn_or_moves_on() -> None:
    assert windows(GRPO(), range(1)) == [StepNoise("flow", 0.7, range(5))]
    cps = GRPO(window=2, noise_kind="cps", noise_level=0.8)
    drawn = Counter(noise.steps for noise in windows(cps, range(400)))
    assert drawn.keys() == {range(i, i + 2) for i in range(4)}
    assert all(count == pytest.approx(100, abs=30) for count in drawn.values())
    assert {(noise.kind, noise.scale) for noise in windows(cps, range(4))} == {("cps", 0.8)}
    moving = windows(GRPO(window=3, shift_every=2), range(8))
    assert [noise.steps.start for noise in moving] == [0, 0, 1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"window": 5}, None),
        ({"window": 4, "shift_every": 3}, None),
        (
            {"shift_every": 3},
            "algorithm.shift_every=3: all steps with noise are in the window, which has nowhere to move; give a "
            "smaller algorithm.window, or leave shift_every out",
        ),
        (
            {"window": 5, "shift_every": 3},
            "algorithm.shift_every=3: all steps with noise are in the window, which has nowhere to move; give a "
            "smaller algorithm.window, or leave shift_every out",
        ),
        ({"window": 6}, "algorithm.window=6: the last of rollout.steps=6 has no noise; give at most 5"),
        (
            {"window": 3, "timesteps_per_image": 4},
            "algorithm.timesteps_per_image=4: an edit has noise in 3 of its steps; give that, or null",
        ),
        (
            {"timesteps_per_image": 6},
            "algorithm.timesteps_per_image=6: an edit has noise in 5 of its steps; give that, or null",
        ),
    ],
)
def test_a_window_fits_into_the_steps_and_levels_into_the_window(changes: dict[str, Any], fault: str | None) -> None:
    assert GRPO(**changes).fault(6) == fault
