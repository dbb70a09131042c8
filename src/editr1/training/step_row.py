"""What a step was like: one row of numbers.

A row says why a run goes wrong. Reward by task and the spread of rewards, within groups and over all: is there a
signal? Groups kept, and why the others were dropped. Size of gradient, update and weights. Drift: how the edits changed
since the first step, each measured against its own source, since the sources differ from step to step.

Every group is measured on its own, in plain numbers, and the row of a step is made of these: pictures need not meet.

Letters: G edits of a group, H W height and width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Images
from PIL.Image import Image

from editr1.algorithms.advantages import STD_MIN
from editr1.training.group import Group

StepRow = dict[str, Any]
Pixels = NDArray[np.float32]
Watch = Callable[[Group], Mapping[str, Sequence[float]]]
"""Measures the edits of a group for the log alone, at most one number per edit; nothing that it says reaches the
training. A name such as "outside/psnr" has a part of the row for itself."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
NOT_ASKED = "not asked"
NOT_FOR_IT = "does not apply: "
"""What begins the reason of an edit that one of its rewards does not apply to."""
LOOK = ("brightness", "saturation", "sharpness", "source_distance")


@dataclass(frozen=True)
class GroupMeasures:
    """The numbers of one group.

    Attributes:
        task: Task type of its item.
        rewards: The rewards that there are.
        reasons: Why an edit has no reward; one entry per edit, None if it has one.
        parts: The rewards that were mixed, by name, those that there are.
        parts_reasons: Why an edit lacks one of these; one entry per edit, None if it is there.
        prompts: Versions of the words that the judges were asked with.
        dropped: Why the group was not trained on; None if it was.
        latent_norm: Root mean square of x0.
        looks: Per edit, `LOOK`: differences to its source.
        watched: What the watch says, by name.
    """

    task: str
    rewards: list[float]
    reasons: list[str | None]
    parts: dict[str, list[float]]
    parts_reasons: dict[str, list[str | None]]
    prompts: list[str]
    dropped: str | None
    latent_norm: float
    looks: list[list[float]]
    watched: dict[str, list[float]] = field(default_factory=dict)


def measure(group: Group, watch: Watch | None = None) -> GroupMeasures:
    """The numbers of a group that has its rewards."""
    assert group.rewards is not None, "rewards come before the measures"
    source, rollout = group.sample.source, group.rollout
    return GroupMeasures(
        task=group.sample.task,
        rewards=_numbers(group.rewards) if group.is_judged else [],
        reasons=group.reasons,
        parts={name: _numbers(values) for name, values in group.parts.items()} if group.is_judged else {},
        parts_reasons=group.parts_reasons,
        prompts=group.prompts,
        dropped=group.dropped,
        latent_norm=float(rollout.latents.float().square().mean().sqrt()),
        looks=[_beside_source(source, image).tolist() for image in rollout.images],
        watched={name: [*values] for name, values in watch(group).items()} if watch else {},
    )


def joined(parts: Sequence[GroupMeasures]) -> GroupMeasures:
    """The numbers of one group from those of its parts, whose edits follow each other."""
    if len(parts) == 1:
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part.parts_reasons)
    not_asked = {part: [NOT_ASKED] * len(parts[part].reasons) for part in range(len(parts))}
    squares = sum(len(part.reasons) * part.latent_norm**2 for part in parts)
    return GroupMeasures(
        task=parts[0].task,
        rewards=[reward for part in parts for reward in part.rewards],
        reasons=[reason for part in parts for reason in part.reasons],
        parts=_gathered(part.parts for part in parts),
        parts_reasons={
            name: [r for i, part in enumerate(parts) for r in part.parts_reasons.get(name, not_asked[i])]
            for name in names
        },
        prompts=sorted({prompt for part in parts for prompt in part.prompts}),
        dropped=parts[0].dropped,
        latent_norm=(squares / sum(len(part.reasons) for part in parts)) ** 0.5,
        looks=[look for part in parts for look in part.looks],
        watched=_gathered(part.watched for part in parts),
    )


def step_row(
    step: int,
    groups: Sequence[GroupMeasures],
    numbers: Mapping[str, float | None],
    start: Mapping[str, float],
    seconds: Mapping[str, float],
) -> StepRow:
    """The row of one step.

    Args:
        step: Steps done, this one included (from 1).
        groups: Measures of all groups of the step, dropped ones too.
        numbers: Loss and its parts, norms: None if nothing was trained.
        start: `edit_statistics` of the run's first step.
        seconds: Spent on the parts of the step, with "total".

    Returns:
        "reward_std_within" is the mean over groups of their std, "reward_std_all" the std of all rewards (both of the
        population); "kept_by_task" counts the groups that are trained on, and "ties" is `ties` of these; "edits" is
        `edit_statistics`, "drift" its difference to `start`; what is watched is `watched_means`. None if there is no
        value.
    """
    edits, kept = edit_statistics(groups), [group for group in groups if group.dropped is None]
    row = {
        "step": step,
        **reward_statistics(groups),
        "groups_kept": len(kept),
        "kept_by_task": dict(sorted(Counter(group.task for group in kept).items())),
        "ties": ties([group.rewards for group in kept]),
        "dropped": dict(Counter(group.dropped for group in groups if group.dropped)),
        **numbers,
        "edits": edits,
        "drift": {name: value - start[name] for name, value in edits.items()},
        "seconds": {part: spent for part, spent in seconds.items() if part != "total"},
        "images_per_s": sum(len(group.looks) for group in groups) / seconds["total"],
    }
    return {**row, **watched_means(groups)}


def watched_means(groups: Sequence[GroupMeasures]) -> dict[str, dict[str, float]]:
    """The means of what is watched, in "watched", or in the part that a name such as "outside/psnr" begins with.

    Such a part has them by task too: "outside_by_task" holds "psnr/add". What no edit has is left out.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for group in groups:
        for name, some in group.watched.items():
            part, slash, below = name.rpartition("/")
            values.setdefault(part or "watched", {}).setdefault(below, []).extend(some)
            if slash:
                values.setdefault(f"{part}_by_task", {}).setdefault(f"{below}/{group.task}", []).extend(some)
    means = {part: {name: fmean(some) for name, some in by.items() if some} for part, by in values.items()}
    return {part: by_name for part, by_name in means.items() if by_name}


def reward_statistics(groups: Sequence[GroupMeasures]) -> StepRow:
    """Mean and spread of the rewards that there are, by task too, and how many are missing and why.

    "parts_unscored" and "parts_reasons" say the same of each reward that is mixed; also of one that is optional or
    does not apply.
    """
    rewards = [torch.tensor(group.rewards, dtype=torch.float64) for group in groups]
    every = torch.cat(rewards)
    tasks: dict[str, list[torch.Tensor]] = {}
    for group, scored in zip(groups, rewards, strict=True):
        tasks.setdefault(group.task, []).append(scored)
    within = [float(scored.std(correction=0)) for scored in rewards if len(scored)]
    parts = _gathered(group.parts for group in groups)
    missing = parts_reasons_of(groups)
    return {
        "reward_mean": _mean(every),
        "reward_std_within": sum(within) / len(within) if within else None,
        "reward_std_all": float(every.std(correction=0)) if len(every) else None,
        "reward_by_task": {task: _mean(torch.cat(scored)) for task, scored in sorted(tasks.items())},
        "unscored": sum(reasons_of(groups).values()),
        "reasons": _commonest(reasons_of(groups)),
        "reward_parts": {name: _mean(torch.tensor(parts[name], dtype=torch.float64)) for name in sorted(parts)},
        "parts_unscored": {name: sum(missing[name].values()) for name in sorted(missing)},
        "parts_reasons": {name: _commonest(missing[name]) for name in sorted(missing) if missing[name]},
        "prompts": sorted({prompt for group in groups for prompt in group.prompts}),
    }


def groups_made(row: Mapping[str, Any]) -> int:
    """The number of groups that the step of a row made."""
    return int(row["groups_kept"] + sum(row["dropped"].values()))


def ties(groups: Sequence[Sequence[float]]) -> float | None:
    """The share of pairs of edits of one group whose rewards are equal up to noise; None if there are no pairs."""
    pairs = [pair for rewards in groups for pair in combinations(rewards, 2)]
    return fmean(abs(one - other) < STD_MIN for one, other in pairs) if pairs else None


def reasons_of(groups: Sequence[GroupMeasures]) -> Counter[str]:
    """How often each reason for having no reward was given."""
    return Counter(reason for group in groups for reason in group.reasons if reason is not None)


def lacking(reasons: Counter[str]) -> Counter[str]:
    """The reasons of edits that lack a reward which applies to them, with their counts."""
    return Counter({reason: count for reason, count in reasons.items() if not reason.startswith(NOT_FOR_IT)})


def parts_reasons_of(groups: Sequence[GroupMeasures]) -> dict[str, Counter[str]]:
    """As `reasons_of`, of each reward that is mixed; edits of a group that was not asked about it count too."""
    names = dict.fromkeys(name for group in groups for name in group.parts_reasons)
    return {
        name: Counter(
            reason
            for group in groups
            for reason in group.parts_reasons.get(name, [NOT_ASKED] * len(group.reasons))
            if reason is not None
        )
        for name in names
    }


def edit_statistics(groups: Sequence[GroupMeasures]) -> dict[str, float]:
    """What the edits look like, means over all of them.

    Returns:
        latent_norm: Root mean square of x0. brightness, saturation, sharpness: Of the edit less that of its source (see
        `look`). source_distance: Mean absolute difference to the source, in [0, 1].
    """
    looks = np.mean([look for group in groups for look in group.looks], axis=0).tolist()
    return {
        "latent_norm": sum(group.latent_norm for group in groups) / len(groups),
        **dict(zip(LOOK, looks, strict=True)),
    }


def look(pixels: Pixels) -> NDArray[np.float64]:
    """[brightness, saturation, sharpness] of an image [H, W, 3] in [0, 1].

    Mean luma; mean of (max - min) / max over the channels, 0 for black; mean absolute step between neighbouring lumas.
    """
    luma: Pixels = pixels @ LUMA  # H W
    red, green, blue = np.moveaxis(pixels, -1, 0)
    high, low = (of(of(red, green), blue) for of in (np.maximum, np.minimum))  # much faster than over the last axis
    saturation = (high - low) / np.maximum(high, 1e-6)
    steps = [np.abs(np.diff(luma, axis=axis)).mean() for axis in (0, 1)]
    return np.array([luma.mean(), saturation.mean(), sum(steps) / 2], np.float64)


def _beside_source(source: Image, edit: Image) -> NDArray[np.float64]:
    """`LOOK` of an edit against its source, brought to the edit's size."""
    before, after = _pixels(source.resize(edit.size, Images.Resampling.LANCZOS)), _pixels(edit)
    return np.array([*(look(after) - look(before)), np.abs(after - before).mean()], np.float64)


def _pixels(image: Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)


def _numbers(values: torch.Tensor) -> list[float]:
    """The values that are not NaN."""
    return values[~values.isnan()].double().tolist()


def _gathered(groups: Iterator[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """The lists of all groups, joined by name."""
    lists: dict[str, list[float]] = {}
    for group in groups:
        for name, values in group.items():
            lists.setdefault(name, []).extend(values)
    return lists


def _commonest(reasons: Counter[str]) -> list[str]:
    """The commonest reasons with their counts, in words."""
    return [f"{count} x {reason}" for reason, count in reasons.most_common(5)]


def _mean(values: torch.Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
