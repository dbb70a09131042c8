"""Advantage Weighted Matching (AWM, arXiv 2509.25050): a policy gradient whose log-likelihood is the pretraining loss.

The flow-matching error of an edit replaces its negative log-likelihood, under the same noise for both policies:

    log p(v) = -w |v - (eps - x0)|^2,   w = 1
    ratio = exp(log p(v) - log p(v_old)),   A = clip(A, -A_max, A_max) / A_max
    L = -mean_i min( A_i ratio_i, A_i clip(ratio_i, 1-c, 1+c) ) + kl * |v - v_ref|^2 + kl_old * |v - v_old|^2

|.|^2 is the mean over the N tokens and C channels of one image. At v = v_old the ratio is 1, and the gradient that
of A_i |v - (eps - x0)|^2: flow matching weighted by the advantage.

While the sampling policy is the trained one, v_old is v, detached: the loop makes no call for it.

Ours is the division of A by A_max: the trainer of Flow-Factory (X-GenGroup) clips A alone, so the same `kl` and
`kl_old` weigh A_max times as much here.

Left out of the published code: its other weights of noise levels (w = t, t^2) and its robust error ("ghuber"), ratios
of means over levels, several optimiser steps on one set of rollouts.

Letters: B rows, N tokens, C channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editr1.algorithms.base import Algorithm, Rows, Velocities


class AWM(Algorithm):
    """Advantage Weighted Matching (arXiv 2509.25050)."""

    title: ClassVar = "AWM"
    parts: ClassVar = {
        "policy": "Policy loss",
        "clipped": "Share of clipped ratios",
        "kl": "Distance to the untrained editor (KL)",
        "kl_old": "Distance to the sampling policy",
    }

    name: Literal["awm"] = "awm"
    """Which algorithm."""
    clip_range: float = Field(default=1.0, gt=0)
    """c: ratios outside [1 - c, 1 + c] get no gradient that leads further out."""
    kl_old: float = Field(default=1.0, ge=0)
    """Weight of the distance to the sampling policy, on the velocity."""

    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the module's formula; its parts `kl` and `kl_old` are the bare distances."""
        dtype, c = rows.x0.dtype, self.clip_range
        v, v_old = velocities["default"].to(dtype), velocities["old"].detach().to(dtype)
        advantages = rows.advantages.clamp(-self.adv_clip, self.adv_clip).to(dtype) / self.adv_clip
        ratio = (rows.error(v_old) - rows.error(v)).exp()  # B
        policy = -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - c, 1 + c)).mean()
        kl_old = (v - v_old).square().mean()
        loss, kl = self.add_distance(policy + self.kl_old * kl_old, rows, velocities)
        clipped = ((ratio - 1).abs() > c).to(dtype).mean()
        parts = {"policy": policy, "clipped": clipped, "kl": kl, "kl_old": kl_old}
        return loss, {name: part.detach() for name, part in parts.items()}
