"""Rejection finetuning (RFT): supervised finetuning on the edits that are better than their group.

    L = mean_i |v - (eps - x0)|^2 + kl * |v - v_ref|^2    over the edits i with A_i > 0

|.|^2 is the mean over the N tokens and C channels of one image. Bad edits are rejected, good ones count alike: the
simplest use of rewards, and what the other algorithms must beat. Of language models it is known as rejection sampling
finetuning (arXiv 2308.01825) and RAFT (arXiv 2304.06767). RAFT keeps the best of each group alone: `informative`, a
share of the accepted edits, comes near it, as one edit at least is kept. The accepted edits are those of the sampling
policy of this step, whereas both papers collect them in larger rounds.

Letters: B rows, N tokens, C channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from editr1.algorithms.base import Algorithm, Rows, Velocities


class RFT(Algorithm):
    """Rejection finetuning: flow matching on the edits that are better than their group."""

    title: ClassVar = "Rejection finetuning"
    parts: ClassVar = {"error": "Error of flow matching", "kl": "Distance to the untrained editor (KL)"}
    senseless: ClassVar = {"rescaled": "its loss has no advantages; leave it at false"}

    name: Literal["rft"] = "rft"
    """Which algorithm."""

    def choose(self, advantages: Tensor) -> list[int]:
        """Those with A > 0, or the best of them; none if all are equal."""
        return super().choose(advantages.where(advantages > 0, torch.nan))

    def asks(self, step: int) -> tuple[str, ...]:
        """The reference, if the distance to it has a weight."""
        return ("reference",) if self.kl > 0 else ()

    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the module's formula; its parts are bare."""
        error = rows.error(velocities["default"].to(rows.x0.dtype)).mean()
        loss, kl = self.add_distance(error, rows, velocities)
        return loss, {"error": error.detach(), "kl": kl.detach()}
