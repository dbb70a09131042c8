"""`editr1 eval data`: an editor on a user's own items (a folder with a data.jsonl), by the judge's reward.

As in a run with `evaluation: {data: FOLDER}`, each item gets some edits, each from noise of its own, and all of them
are judged; here by one judge, and at the guidance of inference. `toy_world.py` measures the toy world by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from editr1.config.rewards import JudgeConfig
from editr1.data.holdout import Part
from editr1.data.samples import EditDataset, StoredDataset
from editr1.devices import pick_device
from editr1.evaluation.benchmarks.edits import EditSettings, open_editor, prepare, settings_dict
from editr1.evaluation.benchmarks.lines import OVERALL, line
from editr1.evaluation.benchmarks.outside import with_outside
from editr1.evaluation.benchmarks.results import ItemRow, Result
from editr1.evaluation.heldout.measure import EvalSettings, Oracle, measure_edits
from editr1.evaluation.heldout.rows import EDITS, EditRow
from editr1.judges.open import open_judge, parse_judge
from editr1.preservation.measure import Measures
from editr1.training.distributed import ALONE, World
from editr1.training.preserving import open_measure

JUDGE = "judge"


def evaluate_data(
    dataset: EditDataset,
    record: dict[str, str],
    settings: EditSettings,
    judge: str,
    out: Path,
    *,
    edits: int,
    features: str | None = None,
    on_items: Callable[[int], None],
    world: World = ALONE,
) -> Result:
    """Edit the items that `first_items` returns, each `edits` times; the same call resumes a stopped one.

    Raises:
        UserError: OUT holds other edits.
    """
    judge_config = parse_judge(judge)
    made_with = record_of(settings, judge_config, edits, benchmark="data", items=len(dataset), **record)
    return measure_dataset(
        dataset, settings, judge_config, made_with, out, features=features, on_items=on_items, world=world
    )


def first_items(dataset: StoredDataset, limit: int | None) -> tuple[EditDataset, dict[str, str]]:
    """The first `limit` items of a folder, None for all; and the record of its place and content."""
    items = len(dataset) if limit is None else min(limit, len(dataset))
    return Part(dataset, range(items)), {"data": str(dataset.folder), "data_crc32": dataset.checksum()}


def record_of(settings: EditSettings, judge: JudgeConfig, edits: int, **more: Any) -> dict[str, Any]:
    """The record of how edits are made and judged; with best of N, an item has N edits."""
    return {
        **more,
        **settings_dict(settings),
        "edits": edits if settings.best_of == 1 else settings.best_of,
        "judge": judge.name,
        "asked": judge.method,
        "prompts": f"{judge.template}/{judge.order}",
        "judge_settings": judge.own_settings,
    }


def measure_dataset(
    dataset: EditDataset,
    settings: EditSettings,
    judge: JudgeConfig,
    made_with: dict[str, Any],
    out: Path,
    *,
    oracle: Oracle | None = None,
    features: str | None = None,
    on_items: Callable[[int], None],
    world: World = ALONE,
) -> Result:
    """Edit the items, measure the edits, and make a result of them; a UserError if OUT holds other edits."""
    prepare(out, made_with, world)
    device = pick_device("auto")
    editor = open_editor(settings, device)
    rows = measure_edits(
        editor,
        open_judge(judge, device),
        dataset,
        out=out / EDITS,
        settings=EvalSettings(
            weights=made_with.get("lora_crc32", "as it is"),
            steps=settings.steps,
            scheduler=settings.scheduler,
            edits_per_item=made_with["edits"],
            noise_seed=settings.seed,
        ),
        oracle=oracle,
        outside=open_measure(editor, features),
        on_items=on_items,
        world=world,
    )
    return result_of(rows, made_with)


def result_of(rows: Sequence[EditRow], made_with: dict[str, Any]) -> Result:
    """The result of rows, with all edits of each item, or the one with the highest reward."""
    by_item: dict[str, list[EditRow]] = {}
    for row in rows:
        by_item.setdefault(row.key, []).append(row)
    if made_with["best_of"] > 1:
        by_item = {key: [_best(edits)] for key, edits in by_item.items()}
    items = tuple(_item(edits) for edits in by_item.values())
    metrics, tasks = tuple(items[0].scores), sorted({item.task for item in items})
    lines = [line(task, [item for item in items if item.task == task], metrics, JUDGE) for task in tasks]
    tables = {"all": (*lines, line(OVERALL, items, metrics, JUDGE))}
    result = Result(made_with["benchmark"], metrics, 1.0, "items", made_with, tables, items)
    measures = {key: _outside(edits) for key, edits in by_item.items()}
    return with_outside(result, measures, {row.key: row.measured_by for row in rows})


def _best(edits: Sequence[EditRow]) -> EditRow:
    """The first edit with the highest reward; one without a reward only if none has one."""
    return max(edits, key=lambda row: -1.0 if row.judge is None else row.judge)


def _outside(edits: Sequence[EditRow]) -> Measures:
    """The means over an item's edits of what they keep outside of its mask; empty if one was not measured."""
    names = edits[0].outside if all(row.outside for row in edits) else {}
    return {name: fmean(row.outside[name] for row in edits) for name in names}


def _item(edits: Sequence[EditRow]) -> ItemRow:
    """The means over an item's edits, the oracle's first if there is one; the judge's is None if an edit has none."""
    rewards = [row.judge for row in edits if row.judge is not None]
    judge = sum(rewards) / len(edits) if len(rewards) == len(edits) else None
    oracle = {name: fmean(row.oracle[name] for row in edits) for name in edits[0].oracle}
    scores = {"oracle": oracle.pop("score"), JUDGE: judge, **oracle} if oracle else {JUDGE: judge}
    first = edits[0]
    reasons = {f"edit {row.index}": row.reason for row in edits if row.reason is not None}
    source, edit = f"{EDITS}/{first.source}", f"{EDITS}/{first.image}"
    return ItemRow(first.key, first.task, ("all",), first.instruction, source, edit, scores, reasons=reasons)
