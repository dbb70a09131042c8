"""One advantage from several rewards: each reward is normalised on its own, so an easy one cannot drown a hard one.

Letters: G edits of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editr1.algorithms.advantages import Std, normalise

Rewards = Mapping[str, Sequence[Tensor]]
"""Rewards by name: one tensor [G] per group, in [0, 1], or NaN where one is missing."""
Shares = Mapping[str, float | Sequence[float]]
"""Weights of rewards by name: one number above 0, or one per group, where 0 leaves the reward out."""


def mix(parts: Rewards, weights: Shares, std: Std = "global") -> list[Tensor]:
    """A_i = normalise(sum_k w_k A_k,i / sum_k w_k) over the rewards k that edit i has, A_k = normalise(R_k).

    The mix is normalised once more, so that the clip A_max means the same for one reward as for several; a single
    reward is normalised once. Where its weight is 0, a reward is as missing: no std counts it.

    Args:
        parts: The rewards.
        weights: Weights of the rewards.
        std: As for `normalise`.

    Returns:
        One tensor [G] per group; NaN for an edit without any reward.
    """
    shares = {name: _per_group(weights[name], len(groups)) for name, groups in parts.items()}
    advantages = {name: normalise(_counted(groups, shares[name]), std) for name, groups in parts.items()}
    if len(advantages) == 1:
        return next(iter(advantages.values()))
    columns = torch.tensor([shares[name] for name in advantages], dtype=torch.float64).unbind(dim=1)
    groups = zip(zip(*advantages.values(), strict=True), columns, strict=True)
    return normalise([_mean(torch.stack(group), column[:, None]) for group, column in groups], std)


def _per_group(weight: float | Sequence[float], groups: int) -> list[float]:
    return [weight] * groups if isinstance(weight, int | float) else [*weight]


def _counted(groups: Sequence[Tensor], shares: Sequence[float]) -> list[Tensor]:
    """Groups [G] of a reward; NaN where its share is 0."""
    pairs = zip(groups, shares, strict=True)
    return [group if share else torch.full_like(group, torch.nan) for group, share in pairs]


def _mean(advantages: Tensor, shares: Tensor) -> Tensor:
    """Weighted mean [G] of the numbers in advantages [K, G]; NaN if there are none."""
    scored = ~advantages.isnan()
    total = (scored * shares).sum(dim=0)
    mean = (advantages.double().nan_to_num() * scored * shares).sum(dim=0) / total
    return mean.to(advantages.dtype)
