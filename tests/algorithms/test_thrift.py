"""What is left out of a step: estimates that are unbiased, edits that matter most, levels that are evenly used."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from editr1.algorithms.awm import AWM
from editr1.algorithms.base import Algorithm, Edits, Rows
from editr1.algorithms.nft import NFT
from editr1.algorithms.thrift import draw_levels, informative, rescale, sample_rows, spread_levels

G, N, C = 6, 3, 2
Kind = type[NFT] | type[AWM]
LEVELS = torch.tensor([1.0, 0.8, 0.5, 0.2])
NAN = math.nan


def edits(*advantages: float) -> Edits:
    latents = torch.randn(len(advantages), N, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Edits(latents, torch.tensor(advantages, dtype=torch.float64), LEVELS)


def rows_of(algorithm: Algorithm, group: Edits, seed: int = 0) -> Rows:
    return algorithm.rows(group, torch.Generator().manual_seed(seed))


def velocities_of(rows: Rows) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    names = ("default", "old", "reference")
    velocities = {name: torch.randn(rows.x0.shape, generator=generator, dtype=torch.float64) for name in names}
    velocities["default"].requires_grad_()
    return velocities


def gradient(algorithm: Algorithm, rows: Rows, velocities: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and its gradient, as the trainer asks for them: the reference on the compared rows alone."""
    reference = velocities["reference"]
    if rows.kl_weights is not None:
        reference = reference[rows.kl_weights > 0]
    loss, _ = algorithm.loss(rows, {**velocities, "reference": reference})
    return loss.detach(), torch.autograd.grad(loss, velocities["default"])[0]


@pytest.mark.parametrize("kind", [NFT, AWM])
def test_the_reference_term_on_some_rows_has_the_expectation_of_the_whole_one(kind: Kind) -> None:
    algorithm, rows = kind(kl=3.0), rows_of(NFT(timesteps_per_image=1), edits(1.0, -1.0, 0.5, 0.0, -0.5, 0.2))
    velocities = velocities_of(rows)
    whole = gradient(algorithm, rows, velocities)
    weights = [torch.zeros(G).index_fill(0, torch.tensor(pair), G / 2) for pair in combinations(range(G), 2)]
    every = [gradient(algorithm, Rows(rows.x0, rows.x_t, rows.t, rows.advantages, w), velocities) for w in weights]
    for some, expected in zip(zip(*every, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(some).mean(dim=0), expected, rtol=1e-12, atol=1e-12)
    assert every[0][0] != whole[0]


def test_every_choice_of_rows_is_drawn_equally_often_with_weights_whose_mean_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([sample_rows(G, 0.3, generator) for _ in range(6000)])
    assert set(draws.unique().tolist()) == {0.0, G / 2} and ((draws > 0).sum(dim=1) == 2).all()
    pairs = (draws > 0).double().T @ (draws > 0).double() / len(draws)
    off = ~torch.eye(G, dtype=torch.bool)
    assert (pairs[off] - 1 / 15).abs().max() < 0.016 and (pairs.diagonal() - 1 / 3).abs().max() < 0.025
    assert sample_rows(5, 0.01, generator).sort().values.tolist() == [0, 0, 0, 0, 5]


@pytest.mark.parametrize("kind", [NFT, AWM])
def test_a_share_of_one_is_the_whole_reference_term(kind: Kind) -> None:
    group = edits(1.0, -1.0, 0.5, 0.0)
    usual, same = rows_of(kind(), group), rows_of(kind(kl_share=1.0), group)
    some = rows_of(kind(kl_share=0.5), group)
    assert usual.kl_weights is None and same.kl_weights is None and usual.compared is usual
    assert some.kl_weights is not None and len(some.compared) == len(usual) / 2
    for name in ("x0", "x_t", "t", "advantages"):
        assert torch.equal(getattr(usual, name), getattr(some, name))
    velocities, algorithm = velocities_of(usual), kind(kl=2.0)
    ones = Rows(usual.x0, usual.x_t, usual.t, usual.advantages, torch.ones(len(usual)))
    for a, b in zip(gradient(algorithm, ones, velocities), gradient(algorithm, usual, velocities), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_batch_of_which_no_row_is_drawn_has_no_reference_term() -> None:
    rows = rows_of(NFT(), edits(1.0, -1.0))
    none = Rows(rows.x0, rows.x_t, rows.t, rows.advantages, torch.zeros(len(rows)))
    velocities = velocities_of(rows)
    del velocities["reference"]
    assert len(none.compared) == 0
    loss, parts = NFT(kl=2.0).loss(none, velocities)
    assert parts["kl"] == 0 and loss == NFT(kl=0).loss(rows, velocities)[0]


@pytest.mark.parametrize("kind", [NFT, AWM])
@pytest.mark.parametrize("size", [1, 3, 4, 7, 100])
def test_a_share_of_the_reference_term_is_the_same_in_batches_of_any_size(kind: Kind, size: int) -> None:
    algorithm = kind(kl=2.0, kl_share=0.3, timesteps_per_image=2)
    rows = rows_of(algorithm, edits(1.0, -1.0, 0.5, 0.0, 0.2))
    assert rows.kl_weights is not None
    velocities, drawn = velocities_of(rows), rows.kl_weights > 0
    whole, total, start = gradient(algorithm, rows, velocities), torch.zeros((), dtype=torch.float64), 0
    for some in rows.split(size):
        part = slice(start, start + len(some))
        own = {name: v[part] for name, v in velocities.items()}
        loss, _ = algorithm.loss(some, {**own, "reference": own["reference"][drawn[part]]})
        total, start = total + len(some) / len(rows) * loss, start + len(some)
    torch.testing.assert_close(total, whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(total, velocities["default"])[0], whole[1], rtol=1e-12, atol=1e-12)


def test_the_most_informative_edits_have_the_largest_advantages_whatever_their_sign() -> None:
    advantages = torch.tensor([0.1, -2.0, NAN, 0.0, 1.5, -0.2])
    assert informative(advantages, 0.4) == [1, 4]
    assert informative(advantages, 0.6) == [1, 4, 5]
    assert informative(advantages, 1.0) == [0, 1, 3, 4, 5]
    assert informative(advantages, 0.01) == [1]
    assert informative(torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.5) == [0, 1]
    assert informative(torch.tensor([NAN, NAN]), 0.5) == []


@given(
    st.lists(st.sampled_from([NAN, -2.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=12),
    st.floats(0.01, 1),
    st.booleans(),
    st.sampled_from(["sampler", "uniform"]),
)
def test_as_many_rows_are_made_as_are_counted_before_latents_are_known(
    advantages: list[float], share: float, stratified: bool, timesteps: str
) -> None:
    settings = {"informative": share, "stratified": stratified, "timesteps": timesteps, "rescaled": True}
    algorithm, group = NFT.model_validate(settings), edits(*advantages)
    bare = Edits(torch.empty(len(advantages), 0, 0), group.advantages, LEVELS)
    rows = rows_of(algorithm, group)
    assert len(rows) == algorithm.count(bare) == algorithm.count(group)
    assert not rows.advantages.isnan().any() and ((rows.t > 0) & (rows.t <= 1)).all()


def test_the_noise_of_an_edit_does_not_depend_on_which_others_are_trained_on() -> None:
    every, some = edits(0.1, -2.0, 0.3, 0.0, 1.5), edits(0.1, -2.0, NAN, 0.0, 1.5)
    for stratified in (False, True):
        settings = {"timesteps_per_image": 2, "stratified": stratified}
        whole = rows_of(NFT.model_validate(settings), every)
        few = rows_of(NFT.model_validate({**settings, "informative": 0.5}), some)
        assert few.advantages.tolist() == [-2.0, -2.0, 1.5, 1.5]
        for rows, chosen in ((whole, [2, 3, 8, 9]), (few, range(4))):
            eps = rows.target + rows.x0
            torch.testing.assert_close(eps[[*chosen]], (whole.target + whole.x0)[[2, 3, 8, 9]], rtol=1e-5, atol=1e-5)


def test_rescaled_edits_weigh_what_the_group_weighs_on_average() -> None:
    torch.testing.assert_close(rescale(torch.tensor([2.0, 0.0, -2.0, 0.0]), [0, 2], 5.0), torch.tensor([1.0, -1.0]))
    advantages = torch.tensor([9.0, NAN, 1.0, -2.0, 0.5])  # 9 counts as 5
    torch.testing.assert_close(rescale(advantages, [0, 3], 5.0), torch.tensor([5.0, -2.0]) * (8.5 / 4) / (7 / 2))
    assert rescale(torch.zeros(3), [0, 1], 5.0).tolist() == [0, 0]
    torch.testing.assert_close(rescale(torch.tensor([1.0, -7.0]), [0, 1], 5.0), torch.tensor([1.0, -5.0]))


@pytest.mark.parametrize("algorithm", [NFT(kl=0, timesteps_per_image=1), NFT(kl=0, form="velocity"), AWM(kl=0)])
def test_left_out_edits_of_advantage_zero_change_no_gradient_where_the_rest_is_rescaled(algorithm: Algorithm) -> None:
    group = edits(1.0, 0.0, -0.5, 0.0, 0.0, 2.0)
    thrifty = algorithm.model_copy(update={"informative": 0.5, "rescaled": True})
    whole, few = rows_of(algorithm, group), rows_of(thrifty, group)
    kept = [index for index in range(len(whole)) if whole.advantages[index] != 0]
    old = velocities_of(whole)["old"]
    gradients = []
    for rows, v_old in ((whole, old), (few, old[kept])):
        v = v_old.clone().requires_grad_()
        loss, _ = algorithm.loss(rows, {"default": v, "old": v_old})
        gradients.append(torch.autograd.grad(loss, v)[0])
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[1], gradients[0][kept], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("chosen", "count"), [(6, 2), (5, 3), (4, 4), (1, 1), (3, 1)])
def test_levels_of_the_sampler_are_used_equally_often_and_never_twice_by_one_edit(chosen: int, count: int) -> None:
    for seed in range(20):
        t = spread_levels(LEVELS, 6, chosen, count, torch.Generator().manual_seed(seed))
        assert t.shape == (chosen, count)
        used = [int((t == level).sum()) for level in LEVELS]
        assert sum(used) == chosen * count and max(used) - min(used) <= 1
        assert all(len(row.unique()) == count for row in t)


@pytest.mark.parametrize("chosen", [4, 6])
def test_levels_anywhere_come_one_from_each_part(chosen: int) -> None:
    t = spread_levels(None, 6, chosen, 3, torch.Generator().manual_seed(0)).flatten().sort().values
    part = 3 * chosen * (t - 1e-3) / (1 - 1e-3)
    assert part.floor().tolist() == [*range(3 * chosen)]


@pytest.mark.parametrize("visited", [LEVELS, None])
def test_the_levels_of_one_edit_are_distributed_as_if_they_were_drawn_for_it_alone(visited: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.stack([spread_levels(visited, 5, 5, 2, generator) for _ in range(3000)])
    for function in (torch.square, torch.sqrt):
        for edit in range(5):
            alone = function(draw_levels(visited, 20_000, 2, generator))
            assert function(spread[:, edit]).mean().item() == pytest.approx(alone.mean().item(), abs=0.02)
            if visited is not None:  # also the two together
                both = function(spread[:, edit]).prod(dim=-1).mean().item()
                assert both == pytest.approx(alone.prod(dim=-1).mean().item(), abs=0.02)
