"""The seam: rows, credit, the sampling policy's decay, and how an algorithm is found."""

from __future__ import annotations

import math
import pkgutil

import pytest
import torch
from torch import Tensor

import editr1.algorithms
from editr1.algorithms.advantages import filter_groups, normalise
from editr1.algorithms.base import Algorithm, Edits, Rows, find_algorithms
from editr1.algorithms.mixing import mix
from editr1.algorithms.nft import NFT
from editr1.algorithms.thrift import draw_levels

G, N, C = 4, 3, 2
LEVELS = torch.tensor([1.0, 0.8, 0.5, 0.2])


def edits(*advantages: float, dtype: torch.dtype = torch.float32) -> Edits:
    """Edits with all that any algorithm needs; the sampler's last step has no noise."""
    path = torch.randn(len(LEVELS) + 1, len(advantages), N, C, generator=torch.Generator().manual_seed(1), dtype=dtype)
    numbers = torch.tensor([0.9, -0.2, 0.3]).repeat(len(LEVELS), 1)
    numbers[-1] = torch.tensor([1.0, -0.2, 0.0])
    return Edits(path[-1], torch.tensor(advantages), LEVELS, path, numbers)


def rows_of(algorithm: Algorithm, given: Edits, seed: int = 0) -> Rows:
    return algorithm.rows(given, torch.Generator().manual_seed(seed))


def test_every_algorithm_of_the_folder_is_known_by_its_name() -> None:
    algorithms = find_algorithms()
    assert (
        {"nft", "awm", "grpo"}
        <= algorithms.keys()
        <= {m.name for m in pkgutil.iter_modules(editr1.algorithms.__path__)}
    )
    for name, kind in algorithms.items():
        assert kind(name=name).name == name == kind.__module__.rpartition(".")[2]
        assert kind.parts and "loss" not in kind.parts


@pytest.mark.parametrize("name", sorted(find_algorithms()))
def test_a_loss_is_finite_has_its_named_parts_and_trains_the_default_policy_alone(name: str) -> None:
    algorithm = find_algorithms()[name](name=name, kl=0.1)
    rows = rows_of(algorithm, edits(-1.0, 0.0, 0.5, 1.0))
    policies = ("default", *algorithm.asks(5))
    velocities = {p: torch.randn(rows.x0.shape).requires_grad_() for p in policies}
    loss, parts = algorithm.loss(rows, velocities)
    loss.backward()
    assert loss.isfinite() and loss.ndim == 0
    assert list(parts) == list(algorithm.parts) and not any(part.requires_grad for part in parts.values())
    gradients: dict[str, Tensor | None] = {p: velocity.grad for p, velocity in velocities.items()}
    assert gradients.pop("default") is not None and set(gradients.values()) == {None}


@pytest.mark.parametrize("name", sorted(find_algorithms()))
def test_micro_batches_weighted_by_their_share_of_rows_give_the_whole(name: str) -> None:
    algorithm = find_algorithms()[name](name=name, kl=0.1)
    rows = rows_of(algorithm, edits(-1.0, 0.3, 0.0, 2.0, 1.0, dtype=torch.float64))
    velocities = {p: torch.randn_like(rows.x0) for p in ("default", "old", "reference")}
    whole, parts = algorithm.loss(rows, velocities)
    total, start = torch.zeros(len(parts) + 1, dtype=torch.float64), 0
    for some in rows.split(4):
        loss, some_parts = algorithm.loss(some, {p: v[start : start + len(some)] for p, v in velocities.items()})
        total += len(some) / len(rows) * torch.stack([loss, *some_parts.values()])
        start += len(some)
    torch.testing.assert_close(total, torch.stack([whole, *parts.values()]))


@pytest.mark.parametrize("kind", [kind for kind in find_algorithms().values() if kind.compares])
@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("timesteps", ["sampler", "uniform"])
def test_edits_that_are_compared_share_level_and_noise_and_are_side_by_side(
    kind: type[Algorithm], stratified: bool, timesteps: str
) -> None:
    settings = {"name": kind.model_fields["name"].default, "timesteps": timesteps, "timesteps_per_image": 3}
    algorithm, given = kind.model_validate({**settings, "stratified": stratified}), edits(0.5, math.nan, -1.0, 0.0)
    rows = rows_of(algorithm, given)
    n, eps = rows.unit, rows.target + rows.x0
    assert n == algorithm.unit(given.advantages) == {"dpo": 2}.get(algorithm.name, 3) and len(rows) == 3 * n
    assert torch.equal(rows.t, rows.t[::n].repeat_interleave(n)) and len(rows.t.unique()) == 3
    torch.testing.assert_close(eps, eps[::n].repeat_interleave(n, dim=0), rtol=1e-3, atol=1e-4)
    assert torch.equal(rows.x0, given.latents[algorithm.choose(given.advantages) * 3])
    assert torch.equal(rows.advantages, given.advantages[algorithm.choose(given.advantages) * 3])
    assert [(len(some), some.unit) for some in rows.split(2 * n + 1)] == [(2 * n, n), (n, n)]


def test_rows_hold_every_scored_edit_at_its_levels_with_its_advantage() -> None:
    algorithm, given = NFT(timesteps_per_image=2), edits(0.5, math.nan, -1.0, 0.0)
    rows = rows_of(algorithm, given)
    assert len(rows) == algorithm.count(given) == 6
    assert rows.advantages.tolist() == [0.5, 0.5, -1.0, -1.0, 0.0, 0.0]
    assert torch.equal(rows.x0, given.latents[[0, 0, 2, 2, 3, 3]])
    eps = (rows.x_t - (1 - rows.t)[:, None, None] * rows.x0) / rows.t[:, None, None]
    torch.testing.assert_close(rows.target, eps - rows.x0, rtol=1e-4, atol=1e-5)
    assert [len(some) for some in rows.split(4)] == [4, 2]


def test_an_edit_is_trained_at_one_level_less_than_its_sampler_visits() -> None:
    assert NFT().levels_per_edit(6) == 5
    assert NFT(timesteps_per_image=2).levels_per_edit(6) == 2
    rows = rows_of(NFT(timesteps="uniform", timesteps_per_image=9), edits(1.0))
    assert len(rows) == 9 and not torch.isin(rows.t, LEVELS).any()


def test_all_levels_are_drawn_equally_often() -> None:
    visited = torch.tensor([1.0, 0.8, 0.5, 0.2])
    levels = draw_levels(visited, 4000, 3, torch.Generator().manual_seed(0))
    assert [(levels == level).sum().item() / 4000 for level in visited] == pytest.approx([0.75] * 4, abs=0.03)
    anywhere = draw_levels(None, 4000, 3, torch.Generator().manual_seed(0))
    assert anywhere.shape == (4000, 3) and anywhere.min() > 0 and anywhere.max() <= 1
    assert anywhere.mean() == pytest.approx(0.5, abs=0.02)


def test_credit_is_the_normalised_rewards_and_the_filter() -> None:
    rewards = [torch.tensor([0.1, 0.5, math.nan]), torch.tensor([0.95, 0.96, 0.95])]
    credit = NFT().credit(rewards)
    for advantages, expected in zip(credit.advantages, normalise(rewards, "global"), strict=True):
        torch.testing.assert_close(advantages, expected, rtol=0, atol=0, equal_nan=True)
    assert credit.dropped == filter_groups(rewards) == [None, "agree_and_high"]


def test_mixed_rewards_give_mixed_advantages() -> None:
    rewards = [torch.rand(3), torch.rand(3)]
    parts = {"judge": rewards, "kept": [torch.rand(3), torch.rand(3)]}
    weights = {"judge": 1.0, "kept": 0.5}
    credit = NFT(std="group").credit(rewards, parts, weights)
    for advantages, expected in zip(credit.advantages, mix(parts, weights, "group"), strict=True):
        torch.testing.assert_close(advantages, expected, rtol=0, atol=0)


def test_credit_that_does_not_need_the_whole_step_is_the_same_group_by_group() -> None:
    rewards = [torch.rand(4), torch.rand(4), torch.full((4,), 0.95)]
    assert NFT(std="global").needs_whole_step
    alone = NFT(std="group")
    assert not alone.needs_whole_step
    whole, single = alone.credit(rewards), [alone.credit([group]) for group in rewards]
    assert whole.dropped == [credit.dropped[0] for credit in single]
    assert all(torch.equal(a, credit.advantages[0]) for a, credit in zip(whole.advantages, single, strict=True))


def test_the_decay_of_the_sampling_policy_rises_by_the_rate_up_to_the_cap() -> None:
    assert [NFT().old_decay(step) for step in (0, 1, 100, 500, 9999)] == pytest.approx([0, 0.001, 0.1, 0.5, 0.5])
    fast = NFT(old_rate=0.01, old_cap=0.2)
    assert [fast.old_decay(step) for step in (0, 5, 20, 21)] == pytest.approx([0, 0.05, 0.2, 0.2])
