"""Centered Reward Distillation (CRD, arXiv 2603.14128): the model's implicit reward matches the judge's.

The optimum of reward minus KL is p ~ p_old exp(reward / beta): up to a constant of its prompt, the log-ratio of the two
policies is the reward. Within a group that constant cancels when both sides are centred. Of n edits at one level:

    R_i = e(v_old) - e(v),    e(u) = |u - (eps - x0)|^2 / w(u),    w(u) = mean |u - (eps - x0)|, detached
    a_i = clip(A_i / A_max, -1, 1)/2 + 1/2
    L = A_max/beta * mean_i [ beta (R_i - mean R) - (a_i - mean a) ]^2 + kl * mean_i [ a_i |v - v_ref|^2 ]

|.|^2 is the mean over the N tokens and C channels of one image. At v = v_old, whatever beta, the gradient is that of
(A_i - mean A) e(v): flow matching weighted by the advantage. The KL counts by a_i (`adaptive_kl`): bad edits may go.

The formula is read from the authors' trainer in Flow-Factory (X-GenGroup); the paper's own equations could not be read.
Left out of it: a sampler apart from the moving reference v_old (here both are the sampling policy), a reference under
classifier-free guidance, centring by softmax weights, its binary cross-entropy, a KL of at least 1e-4. There each edit
has noise of its own; here the edits of a group share it.

Letters: B rows, N tokens, C channels, n edits of a group.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editr1.algorithms.base import Algorithm, Rows, Velocities
from editr1.algorithms.nft import optimality, self_normalised


class CRD(Algorithm):
    """Centered Reward Distillation (arXiv 2603.14128)."""

    title: ClassVar = "CRD"
    parts: ClassVar = {
        "matching": "Error of the implicit rewards",
        "kl": "Distance to the untrained editor (KL), by reward",
    }
    compares: ClassVar = True

    name: Literal["crd"] = "crd"
    """Which algorithm."""
    beta: float = Field(default=1.0, gt=0)
    """How far the policy may move from the old one: the larger, the less reward it must show."""
    adaptive_kl: bool = True
    """The distance to the untrained editor counts by an edit's optimality, so that bad edits are free to change."""

    @property
    def tells_distance(self) -> bool:
        """Only if all edits count alike."""
        return super().tells_distance and not self.adaptive_kl

    def kl_weights(self, advantages: Tensor, generator: torch.Generator) -> Tensor | None:
        """Those of the drawn rows, times the optimality of their edits."""
        weights = super().kl_weights(advantages, generator)
        if self.kl == 0 or not self.adaptive_kl:
            return weights
        optimal = optimality(advantages, self.adv_clip)
        return optimal if weights is None else weights * optimal

    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the module's formula; its part `matching` is the mean of the squares, `kl` the bare distance."""
        v, v_old = (velocities[name].to(rows.x0.dtype) for name in ("default", "old"))
        implicit = (self_normalised(v_old.detach() - rows.target) - self_normalised(v - rows.target))[0]
        wanted = optimality(rows.advantages, self.adv_clip).to(implicit)
        matching = (_centred(self.beta * implicit, rows) - _centred(wanted, rows)).square().mean()
        loss, kl = self.add_distance(self.adv_clip / self.beta * matching, rows, velocities)
        return loss, {"matching": matching.detach(), "kl": kl.detach()}


def _centred(values: Tensor, rows: Rows) -> Tensor:
    """Values [B] minus their mean over the n edits that are compared, [B/n, n]."""
    units = values.reshape(-1, rows.unit)
    return units - units.mean(dim=1, keepdim=True)
