"""The Diffusion Negative-aware Finetuning loss (DiffusionNFT, arXiv 2509.16117), as Edit-R1 (arXiv 2510.16888) uses it.

Flow matching: x_t = (1-t) x0 + t eps, velocity v = eps - x0. A good edit (r near 1) pulls v toward the velocity that
leads to it; a bad one (r near 0) pulls v's mirror image about v_old there, and so pushes v away:

    v_pos = (1-beta) v_old + beta v            v_neg = (1+beta) v_old - beta v
    L = adv_clip/beta * mean_i [ r_i e(v_pos) + (1-r_i) e(v_neg) ] + kl * |v - v_ref|^2

    form "x0":        e(u) = |x0hat(u) - x0|^2 / w(u),   x0hat(u) = x_t - t u,   w(u) = mean |x0hat(u) - x0|, detached
    form "velocity":  e(u) = |u - (eps - x0)|^2

|.|^2 is the mean over the N tokens and C channels of one image. The factor adv_clip/beta, the same in both forms,
makes the step at v = v_old independent of both constants (r - 1/2 = A / (2 adv_clip), and v enters times beta).

Left out of the published code: its `adv_mode` variants, and its weights w in float64.

Letters: B rows (one row = one edit at one noise level), N tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Form = Literal["x0", "velocity"]

W_MIN = 1e-5


@dataclass(frozen=True)
class NFTBatch:
    """B noised edits and what the three policies say of them.

    Attributes:
        x0: clean latents of the edits, [B, N, C]; the loss is computed in their dtype.
        x_t: the same, noised, [B, N, C].
        t: noise level of each row, [B], in (0, 1].
        v: velocity of the trained policy, [B, N, C]; gradients flow through it alone.
        v_old: velocity of the sampling policy, [B, N, C].
        v_ref: velocity of the frozen reference, [B, N, C]; None where the kl term is off.
        r: optimality of each row, [B], in [0, 1] (see `optimality`); no NaN.
    """

    x0: Tensor
    x_t: Tensor
    t: Tensor
    v: Tensor
    v_old: Tensor
    v_ref: Tensor | None
    r: Tensor


def optimality(advantages: Tensor, clip: float) -> Tensor:
    """Optimality r = clip(A / A_max, -1, 1)/2 + 1/2, in [0, 1]; 1/2 is as good as the group, NaN stays NaN."""
    return (advantages / clip).clamp(-1, 1) / 2 + 0.5


def nft_loss(
    batch: NFTBatch, *, beta: float, kl: float, adv_clip: float, form: Form = "x0"
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the module's formula: a mean over the rows. Nothing here waits for the device.

    Being a mean over rows, it splits: where M rows are kept in a step, call it on B_j of them at a time and
    back-propagate (B_j / M) * loss_j. The sum over j is the loss of all M rows at once; so are the sums of the parts.

    Args:
        batch: the rows; those of one call may come from any groups.
        beta: how far v_pos and v_neg stand from v_old, > 0.
        kl: weight of the distance to the reference, >= 0.
        adv_clip: A_max, the advantage at which r reaches 1.
        form: "x0" weighs each image by its own error; "velocity" is the plain form of the DiffusionNFT paper.

    Returns:
        The scalar adv_clip/beta * (loss_pos + loss_neg) + kl * distance, and its parts, detached, as `loss_pos`,
        `loss_neg` and `kl` (the distance). The last is left out, and reads 0, when the weight `kl` is 0 or
        `batch.v_ref` is None.
    """
    dtype = batch.x0.dtype
    v, v_old = batch.v.to(dtype), batch.v_old.detach().to(dtype)
    r = batch.r.to(dtype)
    v_pos = (1 - beta) * v_old + beta * v
    v_neg = (1 + beta) * v_old - beta * v
    error = _x0_error if form == "x0" else _velocity_error
    loss_pos = (r * error(batch, v_pos)).mean()
    loss_neg = ((1 - r) * error(batch, v_neg)).mean()
    loss = adv_clip / beta * (loss_pos + loss_neg)
    distance = torch.zeros_like(loss)
    if kl > 0 and batch.v_ref is not None:
        distance = (v - batch.v_ref.detach().to(dtype)).square().mean()
        loss = loss + kl * distance
    return loss, {"loss_pos": loss_pos.detach(), "loss_neg": loss_neg.detach(), "kl": distance.detach()}


def _x0_error(batch: NFTBatch, u: Tensor) -> Tensor:
    """|x0hat - x0|^2 / w of each row, [B], for the velocity `u` [B, N, C]."""
    t = batch.t.to(u.dtype)[:, None, None]  # B 1 1
    residual = batch.x_t - t * u - batch.x0  # x0hat - x0, B N C
    w = residual.detach().abs().mean(dim=(1, 2)).clamp(min=W_MIN)
    return residual.square().mean(dim=(1, 2)) / w


def _velocity_error(batch: NFTBatch, u: Tensor) -> Tensor:
    """|u - (eps - x0)|^2 of each row, [B], for the velocity `u` [B, N, C]; eps - x0 = (x_t - x0)/t."""
    t = batch.t.to(u.dtype)[:, None, None]  # B 1 1
    return (u - (batch.x_t - batch.x0) / t).square().mean(dim=(1, 2))
