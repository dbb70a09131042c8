"""What the shipped toy models can do, recomputed from their weights on heldout items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editr1.config.data import Level
from editr1.data.seeds import key_seed
from editr1.editors.editor import Editor
from editr1.editors.open import open_editor
from editr1.evaluation.rank import spearman
from editr1.judges.base import Judge, JudgeRequest
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.local import TransformersModel
from editr1.judges.prompts import load_prompt
from editr1.toy import oracle
from editr1.toy.world import ToyDataset, item_from_key
from editr1.toy_models.train_vae import psnr

ITEMS = 216  # 24 of each task
GROUP = 12
STEPS = 6
SPREAD = 0.05  # groups whose oracle scores spread less have no order to recover
SEED = 7  # of the heldout items; the demo uses another


@dataclass(frozen=True)
class MeasuredGroup:
    """One group of edits of one item: oracle scores [G] and judge scores [G], NaN without a reward."""

    task: str
    oracle: np.ndarray
    judge: np.ndarray


def verify(
    editor_path: Path,
    judge_path: Path,
    *,
    level: Level = "small",
    items: int = ITEMS,
    on_item: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Measure editor, VAE and judge: the numbers in the JSON file beside the weights."""
    editor = open_editor(editor_path, pixels=64 * 64)
    judge = MLLMJudge(
        TransformersModel(judge_path, batch_size=GROUP), load_prompt("brief", "prefix"), method="score_logit"
    )
    groups = measure(editor, judge, ToyDataset("heldout", items, SEED, level), on_item)
    return {
        "editor": editor_figures(groups),
        "vae": {"psnr_db": round(psnr(editor.pipe.vae, level, SEED), 2)},
        "judge": judge_figures(groups),
    }


def measure(
    editor: Editor, judge: Judge, dataset: ToyDataset, on_item: Callable[[], object] = lambda: None
) -> list[MeasuredGroup]:
    """Twelve edits of every item with the demo's rollout settings, scored by both."""
    groups = []
    for index in range(len(dataset)):
        sample = dataset[index]
        images = editor.rollout(sample, GROUP, steps=STEPS, seed=key_seed(sample.key)).images
        requests = [JudgeRequest(sample, image) for image in images]
        rewards = [np.nan if score.value is None else score.value for score in judge.score(requests)]
        truth = [oracle.score(item_from_key(sample.key), image).score for image in images]
        groups.append(MeasuredGroup(sample.task, np.array(truth), np.array(rewards)))
        on_item()
    return groups


def editor_figures(groups: Sequence[MeasuredGroup]) -> dict[str, Any]:
    """Mean oracle score and mean spread within groups, over all and by task."""

    def figures(some: Sequence[MeasuredGroup]) -> dict[str, float]:
        spread = float(np.mean([group.oracle.std() for group in some]))
        return {"oracle_mean": _round(np.mean([group.oracle for group in some])), "within_group_std": _round(spread)}

    return figures(groups) | {"by_task": {task: figures(some) for task, some in _by_task(groups).items()}}


def judge_figures(groups: Sequence[MeasuredGroup]) -> dict[str, Any]:
    """Rank correlation with the oracle over all edits, and within groups with spread (None if no group has any)."""

    def within(some: Sequence[MeasuredGroup]) -> float | None:
        ranked = [correlation(group.oracle, group.judge) for group in some if group.oracle.std() > SPREAD]
        return _round(np.mean(ranked)) if ranked else None

    def overall(some: Sequence[MeasuredGroup]) -> float:
        return _round(correlation(np.concatenate([g.oracle for g in some]), np.concatenate([g.judge for g in some])))

    by_task = {
        task: {"spearman": overall(some), "within_group_spearman": within(some)}
        for task, some in _by_task(groups).items()
    }
    return {"spearman": overall(groups), "within_group_spearman": within(groups), "by_task": by_task}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation in [-1, 1]; pairs with NaN are left out, and it is 0 if one side is constant."""
    both = ~(np.isnan(a) | np.isnan(b))
    return spearman(a[both], b[both]) or 0.0


def _by_task(groups: Sequence[MeasuredGroup]) -> dict[str, list[MeasuredGroup]]:
    tasks: dict[str, list[MeasuredGroup]] = defaultdict(list)
    for group in groups:
        tasks[group.task].append(group)
    return dict(sorted(tasks.items()))


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)
