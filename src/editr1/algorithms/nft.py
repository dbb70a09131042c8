"""Diffusion Negative-aware Finetuning (DiffusionNFT, arXiv 2509.16117), as Edit-R1 (arXiv 2510.16888) uses it.

Flow matching: x_t = (1-t) x0 + t eps, velocity v = eps - x0. A good edit (r near 1) pulls v toward the velocity that
leads to it; a bad one (r near 0) pulls v's mirror image about v_old there, and so pushes v away:

    r = clip(A / A_max, -1, 1)/2 + 1/2
    v_pos = (1-beta) v_old + beta v            v_neg = (1+beta) v_old - beta v
    L = A_max/beta * mean_i [ r_i e(v_pos) + (1-r_i) e(v_neg) ] + kl * |v - v_ref|^2

    form "x0":        e(u) = |x0hat(u) - x0|^2 / w(u),   x0hat(u) = x_t - t u,   w(u) = mean |x0hat(u) - x0|, detached
    form "velocity":  e(u) = |u - (eps - x0)|^2

|.|^2 is the mean over the N tokens and C channels of one image. The factor A_max/beta, the same in both forms, makes
the step at v = v_old independent of both constants (r - 1/2 = A / (2 A_max), and v enters times beta). Where regions
of an edit have advantages of their own (`by_region.py`), a token's part of e counts by the r of its region.

Left out of the published code: its `adv_mode` variants, and its weights w in float64.

Letters: R numbers per row (1, or 2 for two regions), B rows, N tokens, C channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from editr1.algorithms.base import Algorithm, Rows, Velocities
from editr1.algorithms.by_region import means, weighted

Form = Literal["x0", "velocity"]
W_MIN = 1e-5


class NFT(Algorithm):
    """DiffusionNFT (arXiv 2509.16117) as Edit-R1 uses it."""

    title: ClassVar = "DiffusionNFT"
    parts: ClassVar = {
        "loss_pos": "Loss of the positive policy",
        "loss_neg": "Loss of the negative policy",
        "kl": "Distance to the untrained editor (KL)",
    }

    weighs_regions: ClassVar = True

    name: Literal["nft"] = "nft"
    """Which algorithm."""
    beta: float = Field(default=1.0, gt=0, le=1)
    """How far the positive policy moves from the old one toward the trained one."""
    form: Form = "x0"
    """Self-normalised loss on the clean estimate, or the plain one on the velocity."""

    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the module's formula; its parts are `loss_pos`, `loss_neg` and `kl`, the bare distance."""
        dtype, beta = rows.x0.dtype, self.beta
        v, v_old = velocities["default"].to(dtype), velocities["old"].detach().to(dtype)
        r = optimality(rows.credit, self.adv_clip).to(dtype)  # R B
        v_pos = (1 - beta) * v_old + beta * v
        v_neg = (1 + beta) * v_old - beta * v
        error = _x0_error if self.form == "x0" else _velocity_error
        loss_pos = weighted(r, error(rows, v_pos)).mean()
        loss_neg = weighted(1 - r, error(rows, v_neg)).mean()
        loss, distance = self.add_distance(self.adv_clip / beta * (loss_pos + loss_neg), rows, velocities)
        return loss, {"loss_pos": loss_pos.detach(), "loss_neg": loss_neg.detach(), "kl": distance.detach()}


def optimality(advantages: Tensor, clip: float) -> Tensor:
    """Optimality r = clip(A / A_max, -1, 1)/2 + 1/2, in [0, 1]; 1/2 is as good as the group, NaN stays NaN."""
    return (advantages / clip).clamp(-1, 1) / 2 + 0.5


def _x0_error(rows: Rows, u: Tensor) -> Tensor:
    """|x0hat - x0|^2 / w of each row, and what of it is outside of the mask, [R, B], for the velocity `u` [B, N, C]."""
    t = rows.t.to(u.dtype)[:, None, None]  # B 1 1
    return self_normalised(rows.x_t - t * u - rows.x0, rows.unmasked)


def _velocity_error(rows: Rows, u: Tensor) -> Tensor:
    """|u - (eps - x0)|^2 of each row, likewise."""
    return means((u - rows.target).square(), rows.unmasked)


def self_normalised(residual: Tensor, unmasked: Tensor | None = None) -> Tensor:
    """|residual|^2 / w of each row, and what of it is `unmasked` [B, N], [R, B].

    w is the mean of |residual| [B, N, C] per image, detached and above 0.
    """
    w = residual.detach().abs().mean(dim=(1, 2)).clamp(min=W_MIN)
    return means(residual.square(), unmasked) / w
