"""Advantages by region (after Edit-GRPO, arXiv 2605.16951): one inside of an edit's mask, and one outside of it.

What judges the instruction has its say about the tokens that the mask has a part in, what judges preservation about all
others. A loss that is a mean over tokens of r(A) e, with r and e of any kind, becomes for one edit

    mean_n r(A_n) e_n  =  r(A_in) e + (r(A_out) - r(A_in)) o,    e = mean_n e_n,    o = mean_n [n is outside] e_n

where A_n is A_in or A_out. The second form has the ordinary loss, to the bit, where both are equal.

The paper's abstract names region-specific signals for edit and non-edit areas; its formulas could not be read.

Letters: G edits of a group, R numbers per row (1, or 2 where regions have advantages of their own), B rows, N tokens,
C channels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from editr1.algorithms.advantages import Std
from editr1.algorithms.mixing import Rewards, Shares, mix


def region_advantages(
    mixed: Sequence[Tensor],
    parts: Rewards,
    weights: Shares,
    outside: Collection[str],
    std: Std = "global",
) -> list[Tensor]:
    """Advantages inside and outside of the mask, each the mix of its own rewards; that of all where these are missing.

    Args:
        mixed: Advantages by all rewards, [G] per group; NaN for an edit without any.
        parts: The rewards; some are of the outside and some are not.
        weights: Weights of the rewards.
        outside: Names of those that judge the outside.
        std: As for `normalise`.

    Returns:
        One tensor [2, G] per group; NaN where `mixed` is.
    """
    inside = mix({name: groups for name, groups in parts.items() if name not in outside}, weights, std)
    beyond = mix({name: groups for name, groups in parts.items() if name in outside}, weights, std)
    groups = zip(mixed, map(torch.stack, zip(inside, beyond, strict=True)), strict=True)
    return [own.where(~own.isnan(), every) for every, own in groups]


def means(squares: Tensor, outside: Tensor | None) -> Tensor:
    """Means of `squares` [B, N, C] over all tokens, e; and o, the part of it that is `outside` [B, N]; [R, B]."""
    whole = squares.mean(dim=(1, 2))
    if outside is None:
        return whole[None]
    return torch.stack([whole, (squares * outside[..., None]).mean(dim=(1, 2))])


def weighted(r: Tensor, errors: Tensor) -> Tensor:
    """mean_n r_n e_n of each row, [B], from r [R, B] inside and outside, and e and o as of `means`, [R, B]."""
    return r[0] * errors[0] + ((r[1:] - r[0]) * errors[1:]).sum(dim=0)
