"""Make and measure edits of held-out items: the judge's reward, and for toy items the oracle's score.

The noise of edit i of an item follows from (noise_seed, item, i) alone, so two evaluations with equal settings differ
only by the editor's weights and are compared edit by edit. No two items share their noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Image

from editr1.config.settings import SchedulerName
from editr1.data.samples import EditDataset, EditSample
from editr1.data.seeds import item_seed
from editr1.editors.editor import Editor
from editr1.evaluation.heldout.outside import Masks, as_asked, masks_of, measure_again, turns, wanted_of, with_outside
from editr1.evaluation.heldout.rows import SOURCE, EditRow, RowStore
from editr1.judges.base import Judge, JudgeRequest, complete_scores
from editr1.toy.oracle import score
from editr1.toy.world import item_from_key
from editr1.training.distributed import ALONE, World
from editr1.training.preserving import Measure

Oracle = Callable[[str, Image], Mapping[str, float]]
"""Scores of an edit by an item's key, "score" among them, that no training reads."""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Settings that two evaluations must share to be compared.

    Attributes:
        weights: Name of the weights under test, e.g. "base" or a checkpoint; rows of other weights are never reused.
        steps: Sampler steps.
        scheduler: Sampler.
        edits_per_item: Number of edits per item.
        noise_seed: Seed of the starting noise.
        made_with: Further settings on which the rows depend, by name.
    """

    weights: str
    steps: int
    scheduler: SchedulerName = "euler"
    edits_per_item: int = 2
    noise_seed: int = 0
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def head(self, items: Sequence[str]) -> dict[str, Any]:
        """The first line of rows.jsonl; there, `edits_per_item` is called "seeds"."""
        names = {"edits_per_item": "seeds"}
        own = {names.get(name, name): value for name, value in asdict(self).items() if name != "made_with"}
        return {**own, **self.made_with, "items": list(items)}


def toy_oracle(key: str, image: Image) -> dict[str, float]:
    """The oracle's scores of an edit of a toy item: "score", "done" and "preserved", each in [0, 1]."""
    return asdict(score(item_from_key(key), image))


def measure_edits(
    editor: Editor,
    judge: Judge,
    dataset: EditDataset,
    *,
    out: Path,
    settings: EvalSettings,
    oracle: Oracle | None = None,
    outside: Measure | None = None,
    masks: Masks | None = None,
    on_items: Callable[[int], None] = lambda count: None,
    world: World = ALONE,
) -> list[EditRow]:
    """Edit and measure every item of a dataset under the weights and adapter that are active.

    Args:
        editor: The editor under test.
        judge: Source of the rewards; an edit without one keeps None and the reason.
        dataset: The items.
        out: Folder of rows and pictures; items whose edits all have a reward are not made again.
        settings: Sampler, noise, and the name of the weights.
        oracle: Measures the edits too; None without one.
        outside: Measures what edits keep outside of the items' masks; None for no such measure. Edits that are there
            and were not measured so are measured now, from their pictures.
        masks: Those of the items, if they are known (`masks_of`); else all items are read for them.
        on_items: Callback with the number of further items that are done.
        world: The processes that share the items; each judges its own, and the main one writes the rows.

    Returns:
        `settings.edits_per_item` rows per item, in the order of the dataset.

    Raises:
        UserError: The rows in `out` have other settings, or a picture is gone that must be measured.
    """
    wanted = wanted_of(masks_of(dataset) if masks is None else masks, outside)
    keys = list(wanted)
    store = RowStore(out, settings.head(keys), writes=world.is_main)
    done = store.keep_items(settings.edits_per_item)
    world.meet("the start of an evaluation")  # every rank has read what is done before the main one adds to it
    on_items(len(done) - measure_again(store, dataset, wanted, outside, world, on_items))
    for turn in turns([index for index, key in enumerate(keys) if key not in done], world):
        own = [dataset[index] for index in turn[world.worker]] if world.worker < len(turn) else []
        edits = _edits(editor, own, settings)
        if editor.is_sharded:  # all ranks make as many calls of the pipeline as the first one
            _edits(editor, [dataset[index] for index in turn[0][len(own) :]], settings)
        rows = _measure(judge, oracle, own, edits, store) if own and world.speaks else []
        rows = with_outside(rows, outside, own, edits) if outside and rows else rows
        gathered = world.gather([asdict(row) for row in rows], "the rows of an evaluation")
        store.add([EditRow(**row) for some in gathered for row in some])
        on_items(sum(map(len, turn)))
    order = {key: index for index, key in enumerate(keys)}
    return sorted(as_asked(store.rows, outside), key=lambda row: (order[row.key], row.index))


def _edits(editor: Editor, samples: Sequence[EditSample], settings: EvalSettings) -> list[list[Image]]:
    """The edits of each sample."""
    count, steps, scheduler = settings.edits_per_item, settings.steps, settings.scheduler
    seeds = [item_seed(settings.noise_seed, sample.key) for sample in samples]
    return [
        editor.rollout(sample, count, steps=steps, seed=seed, scheduler=scheduler).images
        for sample, seed in zip(samples, seeds, strict=True)
    ]


def _measure(
    judge: Judge, oracle: Oracle | None, samples: Sequence[EditSample], edits: list[list[Image]], store: RowStore
) -> list[EditRow]:
    """Judge the edits of several items in one batch, measure them by the oracle, save the pictures."""
    pairs = [
        (sample, i, image) for sample, images in zip(samples, edits, strict=True) for i, image in enumerate(images)
    ]
    requests = [JudgeRequest(sample, image) for sample, _, image in pairs]
    for sample in samples:
        store.save_image(sample.key, SOURCE, sample.source)
    rows = []
    for (sample, i, image), verdict in zip(pairs, complete_scores(judge, requests), strict=True):
        key, measured = sample.key, dict(oracle(sample.key, image)) if oracle else {}
        name = store.save_image(key, i, image)
        rows.append(EditRow(key, sample.task, i, sample.instruction, verdict.value, verdict.reason, measured, name))
    return rows
