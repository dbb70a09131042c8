"""Scouts: a larger group by fewer sampler steps, of which the best and the worst edits are made again by all steps.

The idea is Sol-RL's (arXiv 2604.06916): the noise of an edit decides what is in it, so a cheap edit ranks like the one
that the full sampler makes from the same noise. What is trained on is made by all steps and judged again.

Scouts are ranked by the credit of their group alone, so that mixed rewards count as they do in training. Nothing else
is taken from them: advantages, filter and bans see the edits that are made again. Edits of fewer steps get other
rewards, so their mean would be a wrong zero; about a mean of their own, pull and push are in balance.

Left out: scouts in a smaller number format, which Sol-RL makes in FP4.

Letters: G scouts of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from torch import Tensor

from editr1.training.exchange import Judged, Rewarded


def extremes(advantages: Tensor, count: int) -> list[int]:
    """The `count` scouts that are made again, in their order: the best half (one more if odd) and the worst.

    Equal ones rank by their numbers. Those without reward are taken only if there are too few others.

    Args:
        advantages: Of a group, [G]; NaN for a scout without reward.
        count: At most G.
    """
    missing = advantages.isnan().tolist()
    ranked = sorted(range(len(missing)), key=lambda i: (missing[i], -float(advantages[i]), i))
    scored = len(missing) - sum(missing)
    if scored <= count:
        return sorted(ranked[:count])
    worst = count // 2
    return sorted(ranked[: count - worst] + ranked[scored - worst : scored])


def scout_numbers(
    scouts: Sequence[Rewarded], places: Mapping[int, Sequence[int]], judged: Sequence[Judged]
) -> dict[str, float | None]:
    """What the row of a step says of its scouts.

    Args:
        scouts: Of all groups of the step, with advantages.
        places: The scouts that were made again, by the index of their group.
        judged: The groups of these, in the order of `scouts`.

    Returns:
        "scout_reward": Mean reward of all scouts. "scout_unscored": Scouts without reward. "scout_order": The share of
        pairs of edits of a group, scouts apart in reward, that are in the same order when made again; 1/2 is chance.
    """
    rewards = [value for each in scouts for value in each.rewards[~each.rewards.isnan()].double().tolist()]
    kept = [
        order
        for each, again in zip(scouts, judged, strict=True)
        for order in _orders(each.rewards[list(places[each.index])].tolist(), again.rewards.tolist())
    ]
    return {
        "scout_reward": fmean(rewards) if rewards else None,
        "scout_unscored": sum(len(each.rewards) for each in scouts) - len(rewards),
        "scout_order": fmean(kept) if kept else None,
    }


def _orders(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """For each pair with before[i] > before[j]: 1 if after[i] > after[j], 1/2 if they are equal, else 0."""
    pairs = [(i, j) for i, high in enumerate(before) for j, low in enumerate(before) if high > low]
    differences = [after[i] - after[j] for i, j in pairs]
    return [1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences if d == d]
