"""Make and measure edits of toy items: the judge's reward, and the oracle, which training never reads.

The noise of edit i of an item follows from (noise_seed, item, i) alone, so two evaluations with equal settings differ
only by the editor's weights and are compared edit by edit. No two items share their noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from editr1.config.settings import SchedulerName
from editr1.data.samples import EditDataset, EditSample
from editr1.data.seeds import item_seed
from editr1.editors.editor import Editor
from editr1.evaluation.heldout.rows import SOURCE, EditRow, RowStore
from editr1.judges.base import Judge, JudgeRequest, scores_of
from editr1.toy.oracle import score
from editr1.toy.world import item_from_key

CHUNK = 8  # items that are edited, judged in one batch, and written


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Settings that two evaluations must share to be compared.

    Attributes:
        weights: Name of the weights under test, e.g. "base" or a checkpoint; rows of other weights are never reused.
        steps: Sampler steps.
        scheduler: Sampler.
        edits_per_item: Number of edits per item.
        noise_seed: Seed of the starting noise.
    """

    weights: str
    steps: int
    scheduler: SchedulerName = "euler"
    edits_per_item: int = 2
    noise_seed: int = 0

    def head(self, items: Sequence[str]) -> dict[str, Any]:
        """The first line of rows.jsonl; there, `edits_per_item` is called "seeds"."""
        names = {"edits_per_item": "seeds"}
        return {**{names.get(name, name): value for name, value in asdict(self).items()}, "items": list(items)}


def measure_edits(
    editor: Editor,
    judge: Judge,
    dataset: EditDataset,
    *,
    out: Path,
    settings: EvalSettings,
    on_items: Callable[[int], None] = lambda count: None,
) -> list[EditRow]:
    """Edit and measure every item of a toy dataset under the weights and adapter that are active.

    Args:
        editor: The editor under test.
        judge: Source of the rewards; an edit without one keeps None and the reason.
        dataset: Toy items, with keys of `editr1.toy.world`.
        out: Folder of rows and pictures; finished items are not made again. A UserError if their settings differ.
        settings: Sampler, noise, and the name of the weights.
        on_items: Callback with the number of further items that are done.

    Returns:
        `settings.edits_per_item` rows per item, in the order of the dataset.
    """
    samples = [dataset[index] for index in range(len(dataset))]
    store = RowStore(out, settings.head([sample.key for sample in samples]))
    done = store.keep_items(settings.edits_per_item)
    on_items(len(done))
    left = [sample for sample in samples if sample.key not in done]
    count, steps, scheduler = settings.edits_per_item, settings.steps, settings.scheduler
    for start in range(0, len(left), CHUNK):
        chunk = left[start : start + CHUNK]
        seeds = [item_seed(settings.noise_seed, sample.key) for sample in chunk]
        rollouts = [
            editor.rollout(sample, count, steps=steps, seed=seed, scheduler=scheduler)
            for sample, seed in zip(chunk, seeds, strict=True)
        ]
        store.add(_measure(judge, chunk, [rollout.images for rollout in rollouts], store))
        on_items(len(chunk))
    order = {sample.key: index for index, sample in enumerate(samples)}
    return sorted(store.rows, key=lambda row: (order[row.key], row.index))


def _measure(judge: Judge, samples: Sequence[EditSample], edits: list[list[Image]], store: RowStore) -> list[EditRow]:
    """Judge the edits of several items in one batch, measure them by the oracle, save the pictures."""
    pairs = [
        (sample, i, image) for sample, images in zip(samples, edits, strict=True) for i, image in enumerate(images)
    ]
    requests = [JudgeRequest(sample, image) for sample, _, image in pairs]
    for sample in samples:
        store.save_image(sample.key, SOURCE, sample.source)
    rows = []
    for (sample, i, image), verdict in zip(pairs, scores_of(judge, requests), strict=True):
        key, oracle = sample.key, asdict(score(item_from_key(sample.key), image))
        name = store.save_image(key, i, image)
        rows.append(EditRow(key, sample.task, i, sample.instruction, verdict.value, verdict.reason, oracle, name))
    return rows
