"""Advantages: what each edit is worth within its group, and which groups are worth training on.

Every std is the population's (divided by the count, as `np.std` in the published code). A reward of NaN means "no
reward": no mean and no std counts it, its advantage is NaN, and the caller leaves that edit out.

Letters: G edits of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Std = Literal["global", "group"]
Filter = Literal["paper", "released", "off"]

STD_MIN = 1e-4
"""Smallest std that divides; rewards closer together than this are equal up to noise."""


def normalise(rewards: Sequence[Tensor], std: Std = "global") -> list[Tensor]:
    """A_i = (R_i - mean of its group) / std, for each group of a step.

    Equal rewards get advantages of exactly 0, whatever the other groups are. Computed in float64.

    Args:
        rewards: One tensor [G] per group, in [0, 1] or NaN; G may differ. For "global" all groups of the step, also
            those that the filter drops.
        std: "global" divides by the std of all rewards of the step, which includes the spread between groups, several
            times the spread within them; "group" divides each group by its own std.

    Returns:
        One tensor [G] per group, in the dtype of the rewards.
    """
    step = torch.cat([_scored(group) for group in rewards]) if rewards else torch.empty(0)
    return [_advantages(group, step if std == "global" else _scored(group)) for group in rewards]


def filter_groups(
    rewards: Sequence[Tensor], mode: Filter = "paper", tau_mu: float = 0.9, tau_sigma: float = 0.05
) -> list[str | None]:
    """Which groups are worth training on.

    Reasons to drop a group: "no_reward" if fewer than half of its edits are scored (in every mode); "agree_and_high"
    if std < tau_sigma AND mean > tau_mu (`paper`); "no_spread" if std <= tau_sigma, else "high" if mean >= tau_mu
    (`released`: the published code trains only on std > tau_sigma and mean < tau_mu).

    Args:
        rewards: One tensor [G] per group, in [0, 1] or NaN.
        mode: The paper's rule, the rule of its published code, or no rule on mean and std.
        tau_mu: Mean above which a group is already good.
        tau_sigma: Std below which the rewards of a group agree.

    Returns:
        Per group, the reason why it is dropped; None if it is kept.
    """
    return [_reason(group, mode, tau_mu, tau_sigma) for group in rewards]


def is_solved(rewards: Tensor, tau_mu: float = 0.9, tau_sigma: float = 0.05) -> bool:
    """Whether a group's edits [G] are good and agree: std < tau_sigma AND mean > tau_mu, at least half of them scored.

    It is the paper's rule for dropping a group. The published code does not draw the item again either.
    """
    scored = _scored(rewards)
    enough = 2 * len(scored) >= len(rewards) > 0
    return enough and float(scored.std(correction=0)) < tau_sigma and float(scored.mean()) > tau_mu


def _scored(group: Tensor) -> Tensor:
    """The rewards of the scored edits, float64."""
    return group[~group.isnan()].double()


def _advantages(group: Tensor, population: Tensor) -> Tensor:
    """The group's rewards minus their mean, divided by the std of `population` (scored rewards), [G]."""
    scored = _scored(group)
    if not len(scored):
        return group.clone()
    shifted = group.double() - scored.min()  # equal rewards become exact zeros, and so does their mean
    centred = shifted - (scored - scored.min()).mean()
    return (centred / population.std(correction=0).clamp(min=STD_MIN)).to(group.dtype)


def _reason(group: Tensor, mode: Filter, tau_mu: float, tau_sigma: float) -> str | None:
    """`filter_groups` for one group."""
    scored = _scored(group)
    if 2 * len(scored) < len(group):
        return "no_reward"
    if mode == "paper":
        return "agree_and_high" if is_solved(group, tau_mu, tau_sigma) else None
    if mode == "released" and float(scored.std(correction=0)) <= tau_sigma:
        return "no_spread"
    if mode == "released" and float(scored.mean()) >= tau_mu:
        return "high"
    return None
