"""Supervised finetuning (SFT): flow matching on stored edits, the step that comes before reinforcement learning.

    L = mean_i |v - (eps - x0)|^2 + kl * |v - v_ref|^2

|.|^2 is the mean over the N tokens and C channels of one image. Every edit is trained on, whatever its reward:
it is for edits that are known to be good. Noise levels are uniform, as no sampler has visited any.

Letters: B rows, N tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editr1.algorithms.base import Credit
from editr1.algorithms.mixing import Rewards, Shares
from editr1.algorithms.rft import RFT


class SFT(RFT):
    """Supervised finetuning: flow matching on every edit."""

    title: ClassVar = "Supervised finetuning"
    uses_rewards: ClassVar = False
    senseless: ClassVar = {**RFT.senseless, "filter": "it has no rewards to drop an item by; leave it out"}

    name: Literal["sft"] = "sft"  # type: ignore[assignment]
    """Which algorithm."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the distance to the untrained editor, on the velocity; 0 makes no reference call."""
    timesteps: Literal["sampler", "uniform"] = "uniform"
    """Edits are noised to any levels in (0, 1), or to those that a sampler of rollout.steps visits."""

    def credit(self, rewards: Sequence[Tensor], parts: Rewards | None = None, weights: Shares | None = None) -> Credit:
        """All edits are worth the same, with a reward or without."""
        return Credit([torch.ones_like(group) for group in rewards], [None] * len(rewards))
