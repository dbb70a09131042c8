"""Advantages by region against sums by hand: over tokens in plain Python, each by the advantage of its region."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from editr1.algorithms.base import Edits, Rows
from editr1.algorithms.by_region import region_advantages
from editr1.algorithms.mixing import mix
from editr1.algorithms.nft import NFT, Form

B, N, C = 4, 6, 3
A_MAX, BETA, KL = 2.0, 0.7, 0.3
OUT = [True, False, True, True, False, False]
FORMS = get_args(Form)


def batch(seed: int = 0) -> tuple[Rows, dict[str, Tensor]]:
    """Float64 rows with advantages by region, one beyond the clip, and velocities of three policies."""
    draw = np.random.default_rng(seed)
    x0, eps, v, old, reference = draw.standard_normal((5, B, N, C))
    t, advantages, regions = draw.uniform(0.05, 1, B), draw.standard_normal(B), draw.uniform(-3, 3, (B, 2))
    x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
    rows = Rows(
        *map(torch.from_numpy, (x0, x_t, t, advantages)),
        regions=torch.from_numpy(regions),
        unmasked=torch.tensor(OUT).expand(B, -1),
    )
    policies = {"default": v, "old": old, "reference": reference}
    return rows, {name: torch.from_numpy(values) for name, values in policies.items()}


def nft(form: Form) -> NFT:
    return NFT(form=form, beta=BETA, kl=KL, adv_clip=A_MAX)


def by_hand(rows: Rows, velocities: dict[str, Tensor], form: Form, frozen: Tensor | None = None) -> float:
    """The loss, number by number; `frozen` is the velocity that the detached weights are taken from."""
    assert rows.regions is not None
    v, old, reference = (velocities[name].tolist() for name in ("default", "old", "reference"))
    held = v if frozen is None else frozen.tolist()
    x0, x_t, t, regions = rows.x0.tolist(), rows.x_t.tolist(), rows.t.tolist(), rows.regions.tolist()

    def residual(b: int, n: int, c: int, u: float) -> float:
        if form == "velocity":
            return float(u - (x_t[b][n][c] - x0[b][n][c]) / t[b])
        return float(x_t[b][n][c] - t[b] * u - x0[b][n][c])

    total, places = 0.0, [*product(range(N), range(C))]
    for b in range(B):
        for sign in (1, -1):
            w = 1.0
            if form == "x0":
                us = [old[b][n][c] + sign * BETA * (held[b][n][c] - old[b][n][c]) for n, c in places]
                w = sum(abs(residual(b, n, c, u)) for (n, c), u in zip(places, us, strict=True)) / (N * C)
            for n, c in places:
                r = min(max(regions[b][OUT[n]] / A_MAX, -1), 1) / 2 + 0.5
                u = old[b][n][c] + sign * BETA * (v[b][n][c] - old[b][n][c])
                part = (r if sign == 1 else 1 - r) * residual(b, n, c, u) ** 2 / w
                total += A_MAX / BETA * part / (N * C)
        total += KL * sum((v[b][n][c] - reference[b][n][c]) ** 2 for n, c in places) / (N * C)
    return total / B


def loss_and_gradient(form: Form, rows: Rows, velocities: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    v = velocities["default"].clone().requires_grad_()
    loss = nft(form).loss(rows, {**velocities, "default": v})[0]
    return loss.detach(), torch.autograd.grad(loss, v)[0]


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_sum_over_tokens_each_by_the_optimality_of_its_region(form: Form) -> None:
    rows, velocities = batch()
    loss, parts = nft(form).loss(rows, velocities)
    assert float(loss) == pytest.approx(by_hand(rows, velocities, form), rel=1e-12)
    together = A_MAX / BETA * (parts["loss_pos"] + parts["loss_neg"]) + KL * parts["kl"]
    assert float(together) == pytest.approx(float(loss), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_its_gradient_is_that_of_finite_differences(form: Form) -> None:
    rows, velocities = batch(1)
    _, gradient = loss_and_gradient(form, rows, velocities)
    step, v = 1e-6, velocities["default"]
    for place in np.ndindex(B, N, C):
        ends = []
        for sign in (1, -1):
            moved = v.clone()
            moved[place] += sign * step
            ends.append(by_hand(rows, {**velocities, "default": moved}, form, frozen=v))
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_advantages_in_both_regions_are_one_advantage_bit_for_bit(form: Form, dtype: torch.dtype) -> None:
    rows, velocities = batch(2)
    rows = replace(rows, x0=rows.x0.to(dtype), x_t=rows.x_t.to(dtype), t=rows.t.to(dtype))
    equal = replace(rows, regions=rows.advantages[:, None].expand(-1, 2))
    plain = replace(rows, regions=None, unmasked=None)
    one, other = (loss_and_gradient(form, some, velocities) for some in (equal, plain))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize("form", FORMS)
def test_one_region_that_is_everywhere_has_its_advantage_alone(form: Form) -> None:
    rows, velocities = batch(3)
    assert rows.regions is not None and rows.unmasked is not None
    for region, unmasked in enumerate((torch.zeros_like(rows.unmasked), torch.ones_like(rows.unmasked))):
        everywhere = replace(rows, unmasked=unmasked)
        alone = replace(rows, advantages=rows.regions[:, region], regions=None, unmasked=None)
        one, other = (loss_and_gradient(form, some, velocities) for some in (everywhere, alone))
        assert torch.allclose(one[0], other[0], rtol=1e-14) and torch.allclose(one[1], other[1], rtol=1e-12)
        if region == 0:
            assert torch.equal(one[0], other[0]), "a mask that is white all over: the instruction's, to the bit"


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_of_rows_is_the_mean_of_their_losses(form: Form) -> None:
    rows, velocities = batch(4)
    whole = float(nft(form).loss(rows, velocities)[0])
    each = [
        float(nft(form).loss(rows[b : b + 1], {name: v[b : b + 1] for name, v in velocities.items()})[0])
        for b in range(B)
    ]
    assert whole == pytest.approx(sum(each) / B, rel=1e-13)


nan = math.nan
PARTS = {
    "judge": [torch.tensor([0.1, 0.5, nan, nan, 0.9]), torch.tensor([0.3, 0.2, 0.4])],
    "text": [torch.tensor([0.2, 0.2, nan, nan, 0.8]), torch.tensor([nan, nan, nan])],
    "kept": [torch.tensor([0.9, nan, 0.4, nan, 0.2]), torch.tensor([nan, nan, nan])],
}
WEIGHTS = {"judge": 1.0, "text": 2.0, "kept": 0.5}


def test_each_region_has_the_mix_of_its_rewards_and_that_of_all_where_they_are_missing() -> None:
    mixed = mix(PARTS, WEIGHTS)
    first, second = region_advantages(mixed, PARTS, WEIGHTS, {"kept"})

    def normal(values: list[float], every: list[float], mean: float) -> list[float]:
        return [(value - mean) / float(np.std(every)) for value in values]

    kept = normal([0.9, 0.4, 0.2], [0.9, 0.4, 0.2], 0.5)  # the second group has none
    assert first[1, [0, 2, 4]].tolist() == pytest.approx(kept, rel=1e-6)
    judge = [normal([0.1, 0.5, 0.9], [0.1, 0.5, 0.9, 0.3, 0.2, 0.4], 0.5)]
    judge += [normal([0.3, 0.2, 0.4], [0.1, 0.5, 0.9, 0.3, 0.2, 0.4], 0.3)]
    text = normal([0.2, 0.2, 0.8], [0.2, 0.2, 0.8], 0.4)
    means = [(a + 2 * b) / 3 for a, b in zip(judge[0], text, strict=True)]
    every = [*means, *judge[1]]
    assert first[0, [0, 1, 4]].tolist() == pytest.approx(normal(means, every, float(np.mean(means))), rel=1e-5)
    assert second[0].tolist() == pytest.approx(normal(judge[1], every, float(np.mean(judge[1]))), rel=1e-5, abs=1e-6)

    assert float(first[0, 2]) == float(mixed[0][2]), "no reward of the inside: that of all, here of kept alone"
    assert float(first[1, 1]) == float(mixed[0][1]), "and likewise outside"
    assert second[1].tolist() == mixed[1].tolist()
    assert first[:, 3].isnan().all() and mixed[0][3].isnan(), "no reward at all: the edit is left out"


@pytest.mark.parametrize("informative", [1.0, 0.5])
def test_rows_have_the_advantages_of_their_edit_and_the_tokens_outside_of_its_mask(informative: float) -> None:
    g = torch.Generator().manual_seed(0)
    mixed, regions = torch.tensor([0.1, nan, -2.0, 1.0]), torch.tensor([[1.0, nan, 2.0, 3.0], [-1.0, nan, -2.0, -3.0]])
    masked = ~torch.tensor(OUT)
    edits = Edits(torch.randn(4, N, C, generator=g), mixed, torch.linspace(1, 0.2, 4), masked=masked, regions=regions)
    algorithm = NFT(timesteps_per_image=2, informative=informative)
    rows = algorithm.rows(edits, torch.Generator().manual_seed(1))
    chosen = [0, 2, 3] if informative == 1 else [2, 3]
    assert rows.regions is not None and rows.unmasked is not None
    assert rows.regions.tolist() == [regions[:, edit].tolist() for edit in chosen for _ in range(2)]
    assert (rows.unmasked == torch.tensor(OUT)).all() and len(rows.unmasked) == 2 * len(chosen)
    plain = algorithm.rows(replace(edits, regions=None), torch.Generator().manual_seed(1))
    bare = algorithm.rows(replace(edits, masked=None), torch.Generator().manual_seed(1))
    for other in (plain, bare):
        assert other.regions is None and other.unmasked is None
        assert torch.equal(other.x_t, rows.x_t) and torch.equal(other.advantages, rows.advantages)
        assert torch.equal(other.credit, rows.advantages[None])
    part = rows[1:3]
    assert part.regions is not None and part.credit.tolist() == rows.regions[1:3].T.tolist()
