"""From the rewards of a step to what each edit is worth beside its siblings, and which groups are worth training on.

Every std here is the population's (divided by the count, as the published code's `np.std`). A reward of NaN is "no
reward": it counts in no mean and no std, and its advantage stays NaN; the caller leaves that edit out.

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
"""Rewards closer together than this are taken as equal up to noise: the std that divides is never smaller."""


def normalise(rewards: Sequence[Tensor], std: Std = "global") -> list[Tensor]:
    """A_i = (R_i - mean of its group) / std, for each group of a step.

    Equal rewards get advantages of exactly 0, whatever the rest of the step is like. Computed in float64.

    Args:
        rewards: one tensor [G] a group, in [0, 1] or NaN; G may differ. For "global" all groups of the step, those
            that the filter drops too.
        std: "global" divides by the std of all rewards of the step (it holds the spread between groups too, several
            times the one within); "group" divides each group by its own.

    Returns:
        One tensor [G] a group, in the dtype of the rewards.
    """
    step = torch.cat([_scored(group) for group in rewards]) if rewards else torch.empty(0)
    return [_advantages(group, step if std == "global" else _scored(group)) for group in rewards]


def filter_groups(
    rewards: Sequence[Tensor], mode: Filter = "paper", tau_mu: float = 0.9, tau_sigma: float = 0.05
) -> list[str | None]:
    """Which groups are worth training on.

    Reasons to drop one: "no_reward" when fewer than half of the edits are scored (in every mode); "agree_and_high" when
    std < tau_sigma AND mean > tau_mu (`paper`); "no_spread" when std <= tau_sigma, else "high" when mean >= tau_mu
    (`released`: the published code trains on std > tau_sigma and mean < tau_mu only).

    Args:
        rewards: one tensor [G] a group, in [0, 1] or NaN.
        mode: the paper's rule, the rule of its published code, or no rule on mean and std.
        tau_mu: the mean above which a group is already good.
        tau_sigma: the std below which its rewards agree.

    Returns:
        For each group the reason why it is dropped, or None where it is kept.
    """
    return [_reason(group, mode, tau_mu, tau_sigma) for group in rewards]


def _scored(group: Tensor) -> Tensor:
    """The rewards that are there, float64."""
    return group[~group.isnan()].double()


def _advantages(group: Tensor, population: Tensor) -> Tensor:
    """The group's rewards less their mean, over the std of `population` (scored rewards); [G]."""
    scored = _scored(group)
    if not len(scored):
        return group.clone()
    shifted = group.double() - scored.min()  # equal rewards become exact zeros, so that their mean is exact
    centred = shifted - (scored - scored.min()).mean()
    return (centred / population.std(correction=0).clamp(min=STD_MIN)).to(group.dtype)


def _reason(group: Tensor, mode: Filter, tau_mu: float, tau_sigma: float) -> str | None:
    """`filter_groups` for one group."""
    scored = _scored(group)
    if 2 * len(scored) < len(group):
        return "no_reward"
    mean, std = float(scored.mean()), float(scored.std(correction=0))
    if mode == "paper" and std < tau_sigma and mean > tau_mu:
        return "agree_and_high"
    if mode == "released" and std <= tau_sigma:
        return "no_spread"
    if mode == "released" and mean >= tau_mu:
        return "high"
    return None
