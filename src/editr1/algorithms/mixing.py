"""One advantage from several rewards: each reward is normalised on its own, so an easy one cannot drown a hard one.

Letters: G edits of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editr1.algorithms.advantages import Std, normalise


def mix(parts: Mapping[str, Sequence[Tensor]], weights: Mapping[str, float], std: Std = "global") -> list[Tensor]:
    """A_i = normalise(sum_k w_k A_k,i / sum_k w_k) over the rewards k that edit i has, A_k = normalise(R_k).

    The mix is normalised once more, so that the clip A_max means the same for one reward as for several; a single
    reward is normalised once.

    Args:
        parts: By reward, one tensor [G] per group, in [0, 1], or NaN if it is missing.
        weights: Weights of the rewards, above 0.
        std: As for `normalise`.

    Returns:
        One tensor [G] per group; NaN for an edit without any reward.
    """
    advantages = {name: normalise(groups, std) for name, groups in parts.items()}
    if len(advantages) == 1:
        return next(iter(advantages.values()))
    shares = torch.tensor([weights[name] for name in advantages], dtype=torch.float64)[:, None]
    mixed = [_mean(torch.stack(group), shares) for group in zip(*advantages.values(), strict=True)]
    return normalise(mixed, std)


def _mean(advantages: Tensor, shares: Tensor) -> Tensor:
    """Weighted mean [G] of the numbers in advantages [K, G]; NaN if there are none."""
    scored = ~advantages.isnan()
    total = (scored * shares).sum(dim=0)
    mean = (advantages.double().nan_to_num() * scored * shares).sum(dim=0) / total
    return mean.to(advantages.dtype)
