"""The loss against numpy written from the paper's formula, its gradients against finite differences, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from editr1.algorithms.base import Rows
from editr1.algorithms.nft import NFT, Form, optimality

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """B noised edits, the velocities of the three policies, [B, N, C] each, and the optimality of each row, [B]."""

    x0: Tensor
    x_t: Tensor
    t: Tensor
    v: Tensor
    v_old: Tensor
    v_ref: Tensor | None
    r: Tensor


def nft_loss(
    batch: Batch, *, beta: float, kl: float, adv_clip: float, form: Form = "x0"
) -> tuple[Tensor, dict[str, Tensor]]:
    """The algorithm's loss, with the advantages that have the batch's optimality."""
    algorithm = NFT.model_construct(beta=beta, kl=kl, adv_clip=adv_clip, form=form)  # also beyond what a config may say
    rows = Rows(batch.x0, batch.x_t, batch.t, (2 * batch.r - 1) * adv_clip)
    velocities = {"default": batch.v, "old": batch.v_old}
    return algorithm.loss(rows, velocities if batch.v_ref is None else {**velocities, "reference": batch.v_ref})


B, N, C = 5, 3, 4
FORMS = get_args(Form)


class Settings(TypedDict):
    beta: float
    kl: float
    adv_clip: float


SETTINGS = Settings(beta=0.7, kl=0.3, adv_clip=5.0)


def _batch(seed: int = 0, rows: int = B) -> tuple[Batch, Array]:
    """A float64 batch whose three policies differ, and the noise eps that it was made with."""
    draw = np.random.default_rng(seed)
    x0, eps, v, v_old, v_ref = draw.standard_normal((5, rows, N, C))
    t, r = draw.uniform(0.05, 1, rows), draw.uniform(0, 1, rows)
    x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
    batch = Batch(*(torch.from_numpy(array) for array in (x0, x_t, t, v, v_old, v_ref, r)))
    batch.v.requires_grad_()
    return batch, eps


def _by_the_formula(
    batch: Batch, eps: Array, *, beta: float, kl: float, adv_clip: float, form: Form, w_of: Batch | None = None
) -> float:
    """The loss in plain numpy, image by image; `w_of` is the batch that the detached weights are taken from."""
    total = 0.0
    frozen = w_of or batch
    for i in range(len(batch.r)):
        x0, x_t, v, v_old = (tensor[i].detach().numpy() for tensor in (batch.x0, batch.x_t, batch.v, batch.v_old))
        t, r, v_frozen = float(batch.t[i]), float(batch.r[i]), frozen.v[i].detach().numpy()
        for share, sign in ((r, 1), (1 - r, -1)):  # v_pos = v_old + beta (v - v_old), v_neg its mirror image
            u = v_old + sign * beta * (v - v_old)
            if form == "velocity":
                error = ((u - (eps[i] - x0)) ** 2).mean()
            else:
                u_frozen = v_old + sign * beta * (v_frozen - v_old)
                error = ((x_t - t * u - x0) ** 2).mean() / np.abs(x_t - t * u_frozen - x0).mean()
            total += share * error * adv_clip / beta
        if kl and batch.v_ref is not None:
            total += kl * ((v - batch.v_ref[i].numpy()) ** 2).mean()
    return total / len(batch.r)


def _gradient(batch: Batch, form: Form, *, beta: float = 1.0, kl: float = 0.0, adv_clip: float = 5.0) -> Tensor:
    """dL/dv, [B, N, C]."""
    batch = replace(batch, v=batch.v.detach().requires_grad_())
    return torch.autograd.grad(nft_loss(batch, beta=beta, kl=kl, adv_clip=adv_clip, form=form)[0], batch.v)[0]


def _flow_matching(batch: Batch, eps: Array) -> Tensor:
    """The supervised flow-matching loss of each row, mean |v - (eps - x0)|^2, [B]."""
    return (batch.v - (torch.from_numpy(eps) - batch.x0)).square().mean(dim=(1, 2))


def _flow_matching_gradient(batch: Batch, eps: Array) -> Tensor:
    """d(mean over rows of `_flow_matching`)/dv at v = v_old, [B, N, C]."""
    return 2 * (batch.v_old - torch.from_numpy(eps) + batch.x0) / batch.v_old.numel()


def _x0_factor(batch: Batch, eps: Array) -> Tensor:
    """t / mean |v_old - (eps - x0)|, [B]: what the self-normalising weight makes of a row at v = v_old."""
    return batch.t / (batch.v_old - torch.from_numpy(eps) + batch.x0).abs().mean(dim=(1, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beta", [0.1, 1.0, 1.7])
def test_loss_equals_the_papers_formula(form: Form, beta: float) -> None:
    batch, eps = _batch()
    given_ = Settings(beta=beta, kl=0.3, adv_clip=5.0)
    assert nft_loss(batch, **given_, form=form)[0].item() == pytest.approx(
        _by_the_formula(batch, eps, **given_, form=form), rel=1e-10
    )


@pytest.mark.parametrize("form", FORMS)
def test_gradient_equals_finite_differences_with_the_weight_held(form: Form) -> None:
    batch, eps = _batch()
    loss, _ = nft_loss(batch, **SETTINGS, form=form)
    (gradient,) = torch.autograd.grad(loss, batch.v)
    step = 1e-6
    for i, n, c in np.ndindex(B, N, C):
        moved = []
        for sign in (1, -1):
            v = batch.v.detach().clone()
            v[i, n, c] += sign * step
            moved.append(_by_the_formula(replace(batch, v=v), eps, **SETTINGS, form=form, w_of=batch))
        assert gradient[i, n, c].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-6, abs=1e-8)


def test_no_gradient_reaches_the_old_policy_or_the_reference() -> None:
    batch, _ = _batch()
    assert batch.v_ref is not None
    batch.v_old.requires_grad_()
    batch.v_ref.requires_grad_()
    nft_loss(batch, **SETTINGS)[0].backward()
    assert batch.v.grad is not None
    assert batch.v_old.grad is None
    assert batch.v_ref.grad is None


def test_velocity_form_at_r_one_and_beta_one_is_adv_clip_times_supervised_flow_matching() -> None:
    batch, eps = _batch()
    batch = replace(batch, r=torch.ones_like(batch.r))
    supervised = 5 * _flow_matching(batch, eps).mean()
    loss, _ = nft_loss(batch, beta=1, kl=0, adv_clip=5, form="velocity")
    torch.testing.assert_close(loss, supervised)
    expected = torch.autograd.grad(supervised, batch.v)[0]
    torch.testing.assert_close(_gradient(batch, "velocity"), expected)


def test_x0_form_at_r_one_and_beta_one_is_flow_matching_times_adv_clip_and_t_over_the_mean_error() -> None:
    batch, eps = _batch()
    batch = replace(batch, r=torch.ones_like(batch.r))
    factor = batch.t / (batch.v.detach() - torch.from_numpy(eps) + batch.x0).abs().mean(dim=(1, 2))
    supervised = (5 * factor * _flow_matching(batch, eps)).mean()
    torch.testing.assert_close(nft_loss(batch, beta=1, kl=0, adv_clip=5, form="x0")[0], supervised)
    torch.testing.assert_close(_gradient(batch, "x0"), torch.autograd.grad(supervised, batch.v)[0])


@pytest.mark.parametrize("form", FORMS)
@given(beta=st.floats(0.05, 3), adv_clip=st.floats(0.5, 10), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_at_the_old_policy_the_step_is_the_advantage_times_flow_matching_whatever_beta_and_clip(
    form: Form, beta: float, adv_clip: float, seed: int
) -> None:
    batch, eps = _batch(seed)
    advantages = (batch.r - 0.5) * adv_clip  # inside the clip
    batch = replace(batch, v=batch.v_old, r=optimality(advantages, adv_clip))
    weight = advantages if form == "velocity" else advantages * _x0_factor(batch, eps)
    expected = weight[:, None, None] * _flow_matching_gradient(batch, eps)
    torch.testing.assert_close(_gradient(batch, form, beta=beta, adv_clip=adv_clip), expected)


@pytest.mark.parametrize("form", FORMS)
def test_at_r_half_the_old_policy_has_zero_gradient(form: Form) -> None:
    batch, _ = _batch()
    batch = replace(batch, v=batch.v_old, r=torch.full_like(batch.r, 0.5))
    torch.testing.assert_close(_gradient(batch, form, beta=0.7), torch.zeros(B, N, C, dtype=torch.float64))


def test_at_r_half_the_velocity_form_only_holds_v_at_v_old() -> None:
    batch, eps = _batch()
    half = replace(batch, r=torch.full_like(batch.r, 0.5))
    at_old = _flow_matching(replace(batch, v=batch.v_old), eps).mean()
    expected = 5 / 0.7 * (at_old + 0.7**2 * (batch.v - batch.v_old).square().mean())
    torch.testing.assert_close(nft_loss(half, beta=0.7, kl=0, adv_clip=5, form="velocity")[0], expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_edit_and_the_mirrored_velocity_change_places_with_a_good_one(form: Form) -> None:
    batch, _ = _batch()
    mirrored = replace(batch, v=2 * batch.v_old - batch.v, r=1 - batch.r)
    loss, parts = nft_loss(batch, beta=0.7, kl=0, adv_clip=5, form=form)
    loss_mirrored, parts_mirrored = nft_loss(mirrored, beta=0.7, kl=0, adv_clip=5, form=form)
    torch.testing.assert_close(loss, loss_mirrored)
    torch.testing.assert_close(parts["loss_pos"], parts_mirrored["loss_neg"])
    torch.testing.assert_close(_gradient(batch, form, beta=0.7), -_gradient(mirrored, form, beta=0.7))


@pytest.mark.parametrize("form", FORMS)
def test_parts_add_up_to_the_loss_and_carry_no_gradient(form: Form) -> None:
    batch, _ = _batch()
    loss, parts = nft_loss(batch, **SETTINGS, form=form)
    torch.testing.assert_close(loss.detach(), 5 / 0.7 * (parts["loss_pos"] + parts["loss_neg"]) + 0.3 * parts["kl"])
    assert batch.v_ref is not None
    torch.testing.assert_close(parts["kl"], (batch.v - batch.v_ref).square().mean().detach())
    assert not any(part.requires_grad for part in parts.values())


def test_without_a_weight_the_reference_is_neither_asked_nor_needed() -> None:
    batch, _ = _batch()
    bare, parts = nft_loss(replace(batch, v_ref=None), beta=1, kl=0, adv_clip=5)
    assert parts["kl"].item() == 0
    unused = replace(batch, v_ref=torch.full_like(batch.v_old, torch.nan))
    torch.testing.assert_close(bare, nft_loss(unused, beta=1, kl=0, adv_clip=5)[0], rtol=0, atol=0)
    assert (NFT(kl=0).asks(9), NFT(kl=0.1).asks(9)) == (("old",), ("old", "reference"))


@pytest.mark.parametrize("form", FORMS)
def test_micro_batches_weighted_by_their_share_of_rows_give_loss_and_gradient_of_the_whole(form: Form) -> None:
    batch, _ = _batch(rows=7)
    whole, parts = nft_loss(batch, **SETTINGS, form=form)
    (gradient,) = torch.autograd.grad(whole, batch.v)
    total, total_parts = torch.zeros(()), dict.fromkeys(parts, 0.0)
    leaf = batch.v.detach().requires_grad_()
    for rows in (slice(0, 1), slice(1, 5), slice(5, 7)):
        micro = Batch(*(getattr(replace(batch, v=leaf), name)[rows] for name in Batch.__dataclass_fields__))
        loss, micro_parts = nft_loss(micro, **SETTINGS, form=form)
        share = len(micro.r) / 7
        (share * loss).backward()
        total = total + share * loss.detach()
        total_parts = {name: total_parts[name] + share * part.item() for name, part in micro_parts.items()}
    torch.testing.assert_close(total, whole.detach())
    torch.testing.assert_close(leaf.grad, gradient)
    assert total_parts == pytest.approx({name: part.item() for name, part in parts.items()})


def test_loss_of_bfloat16_velocities_is_computed_in_the_dtype_of_the_latents() -> None:
    batch, _ = _batch()
    names = ("x0", "x_t", "t", "r", "v", "v_old", "v_ref")
    single = replace(batch, **{name: getattr(batch, name).detach().float() for name in names})
    half = replace(single, v=single.v.bfloat16(), v_old=single.v_old.bfloat16())
    rounded = replace(half, v=half.v.float(), v_old=half.v_old.float())
    loss, _ = nft_loss(half, **SETTINGS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nft_loss(rounded, **SETTINGS)[0], rtol=0, atol=0)


def test_a_perfect_prediction_costs_nothing_and_stays_finite() -> None:
    batch, _ = _batch()
    target = (batch.x_t - batch.x0) / batch.t[:, None, None]
    batch = replace(batch, v=target.requires_grad_(), v_old=target.detach(), v_ref=None)
    assert nft_loss(batch, beta=1, kl=0, adv_clip=5)[0].item() == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(_gradient(batch, "x0"), torch.zeros(B, N, C, dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_weight_of_the_x0_form_is_floored_at_1e_5() -> None:
    x0 = torch.zeros(1, N, C, dtype=torch.float64)
    v, one = torch.full_like(x0, 1e-7), torch.ones(1, dtype=torch.float64)
    loss, _ = nft_loss(Batch(x0, x0, one, v, v, None, one), beta=1, kl=0, adv_clip=5)
    assert loss.item() == pytest.approx(5 * 1e-14 / 1e-5)


@given(st.lists(st.floats(-100, 100), min_size=1), st.floats(0.1, 10))
def test_optimality_is_the_clipped_advantage_brought_to_zero_one(values: list[float], clip: float) -> None:
    advantages = torch.tensor(values, dtype=torch.float64)
    expected = np.clip(np.array(values) / clip, -1, 1) / 2 + 0.5
    np.testing.assert_allclose(optimality(advantages, clip), expected, rtol=1e-12)
    torch.testing.assert_close(optimality(-advantages, clip), 1 - optimality(advantages, clip))


def test_optimality_at_its_named_points() -> None:
    advantages = torch.tensor([-9.0, -5.0, 0.0, 2.5, 5.0, 9.0, torch.nan])
    expected = torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0, torch.nan])
    torch.testing.assert_close(optimality(advantages, 5), expected, equal_nan=True)
