"""What a step was like: one row of numbers, and where it goes (metrics.jsonl, TensorBoard, a picture, the terminal).

A row says why a run goes wrong. Reward by task and the spread of rewards, within groups and over all: is there a
signal? Groups kept, and why the others were dropped. Size of gradient, update and weights. Drift: how the edits changed
since the first step, each measured against its own source, since the sources differ from step to step.

Letters: G edits of a group, H W height and width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Images
from PIL.Image import Image

from editr1.training.group import Group

Row = dict[str, Any]
Pixels = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def step_row(
    step: int,
    groups: Sequence[Group],
    measures: Mapping[str, float | None],
    start: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Row:
    """The row of one step.

    Args:
        step: steps done, this one included (from 1).
        groups: all groups of the step with their rewards, dropped ones too.
        measures: loss and its parts, norms: None where nothing was trained.
        start: `edit_statistics` of the run's first step.
        seconds: of the parts of the step, with "total".

    Returns:
        "reward_std_within" is the mean over groups of their std, "reward_std_all" the std of all rewards (both of the
        population); "edits" is `edit_statistics`, "drift" its difference to `start`. None where there is no value.
    """
    edits = edit_statistics(groups)
    return {
        "step": step,
        **reward_statistics(groups),
        "groups_kept": sum(group.dropped is None for group in groups),
        "dropped": dict(Counter(group.dropped for group in groups if group.dropped)),
        **measures,
        "edits": edits,
        "drift": {name: value - start[name] for name, value in edits.items()},
        "seconds": {part: spent for part, spent in seconds.items() if part != "total"},
        "images_per_s": sum(len(group.images) for group in groups) / seconds["total"],
    }


def reward_statistics(groups: Sequence[Group]) -> Row:
    """Mean and spread of the rewards that are there, by task too, and how many are not and why."""
    rewards = [group.rewards[~group.rewards.isnan()].double() for group in groups if group.rewards is not None]
    every = torch.cat(rewards)
    tasks: dict[str, list[torch.Tensor]] = {}
    for group, scored in zip(groups, rewards, strict=True):
        tasks.setdefault(group.sample.task, []).append(scored)
    within = [float(scored.std(correction=0)) for scored in rewards if len(scored)]
    return {
        "reward_mean": _mean(every),
        "reward_std_within": sum(within) / len(within) if within else None,
        "reward_std_all": float(every.std(correction=0)) if len(every) else None,
        "reward_by_task": {task: _mean(torch.cat(parts)) for task, parts in sorted(tasks.items())},
        "unscored": sum(len(group.images) for group in groups) - len(every),
        "reasons": [f"{count} x {reason}" for reason, count in _reasons(groups).most_common(5)],
        "reward_parts": {name: _mean(torch.cat(parts)) for name, parts in sorted(_parts(groups).items())},
        "prompts": sorted({prompt for group in groups for prompt in group.prompts}),
    }


def _reasons(groups: Sequence[Group]) -> Counter[str]:
    """How often each reason for having no reward was given."""
    return Counter(reason for group in groups for reason in group.reasons if reason is not None)


def _parts(groups: Sequence[Group]) -> dict[str, list[torch.Tensor]]:
    """The values that are there of each mixed reward."""
    parts: dict[str, list[torch.Tensor]] = {}
    for group in groups:
        for name, values in group.parts.items():
            parts.setdefault(name, []).append(values[~values.isnan()].double())
    return parts


def _mean(values: torch.Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def edit_statistics(groups: Sequence[Group]) -> dict[str, float]:
    """What the edits look like, means over all of them.

    Returns:
        latent_norm: root mean square of x0. brightness, saturation, sharpness: of the edit less that of its source (see
        `look`). source_distance: mean absolute difference to the source, in [0, 1].
    """
    rows = [_beside_source(group.sample.source, image) for group in groups for image in group.images]
    brightness, saturation, sharpness, distance = np.mean(rows, axis=0).tolist()
    norms = [float(group.latents.float().square().mean().sqrt()) for group in groups]
    return {
        "latent_norm": sum(norms) / len(norms),
        "brightness": brightness,
        "saturation": saturation,
        "sharpness": sharpness,
        "source_distance": distance,
    }


def look(pixels: Pixels) -> NDArray[np.float64]:
    """[brightness, saturation, sharpness] of an image [H, W, 3] in [0, 1].

    Mean luma; mean of (max - min) / max over the channels, 0 for black; mean absolute step between neighbouring lumas.
    """
    luma: Pixels = pixels @ LUMA  # H W
    high, low = pixels.max(axis=-1), pixels.min(axis=-1)
    saturation = (high - low) / np.maximum(high, 1e-6)
    steps = [np.abs(np.diff(luma, axis=axis)).mean() for axis in (0, 1)]
    return np.array([luma.mean(), saturation.mean(), sum(steps) / 2], np.float64)


def _beside_source(source: Image, edit: Image) -> NDArray[np.float64]:
    """[brightness, saturation, sharpness, distance] of an edit against its source, brought to the edit's size."""
    before, after = _pixels(source.resize(edit.size, Images.Resampling.LANCZOS)), _pixels(edit)
    return np.array([*(look(after) - look(before)), np.abs(after - before).mean()], np.float64)


def _pixels(image: Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)
