"""`editr1 eval toy`: an editor on held-out toy items, by the oracle and by the judge; what `editr1 demo` measures.

The default settings give the demo's rows: 2 edits per item, 10 Euler steps, the noise of seed 0. Best of N keeps the
edit with the highest reward of each item: the judge's gain without training, measured by the oracle too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from editr1.config.settings import Level
from editr1.devices import pick_device
from editr1.evaluation.benchmarks.edits import EditSettings, open_editor, prepare, settings_dict
from editr1.evaluation.benchmarks.lines import OVERALL, line
from editr1.evaluation.benchmarks.results import ItemRow, Result
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits, toy_oracle
from editr1.evaluation.heldout.rows import EDITS, EditRow
from editr1.judges.open import open_judge, parse_judge
from editr1.toy.world import ToyDataset

METRICS = ("oracle", "judge", "done", "preserved")


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    """The number of held-out items of a toy world, as many of each task, and of edits per item (without best of N)."""

    items: int = 144
    edits: int = 2
    level: Level = "small"


def evaluate_toy(
    settings: EditSettings, toy: ToySettings, judge: str, out: Path, on_items: Callable[[int], None]
) -> Result:
    """Edit and measure; the same call resumes a stopped one. A UserError if OUT holds other edits."""
    judge_config = parse_judge(judge)
    made_with = {
        "benchmark": "toy",
        **settings_dict(settings),
        "items": toy.items,
        "edits": toy.edits if settings.best_of == 1 else settings.best_of,
        "level": toy.level,
        "judge": judge_config.name,
        "asked": judge_config.method,
        "prompts": f"{judge_config.template}/{judge_config.order}",
    }
    prepare(out, made_with)
    device = pick_device("auto")
    rows = measure_edits(
        open_editor(settings, device),
        open_judge(judge_config, device),
        ToyDataset("heldout", toy.items, level=toy.level),
        out=out / EDITS,
        settings=EvalSettings(
            weights=made_with.get("lora_crc32", "as it is"),
            steps=settings.steps,
            scheduler=settings.scheduler,
            edits_per_item=made_with["edits"],
            noise_seed=settings.seed,
        ),
        oracle=toy_oracle,
        on_items=on_items,
    )
    return toy_result(rows, made_with)


def toy_result(rows: Sequence[EditRow], made_with: dict[str, Any]) -> Result:
    """The result of rows, with all edits of each item, or the one with the highest reward."""
    by_item: dict[str, list[EditRow]] = {}
    for row in rows:
        by_item.setdefault(row.key, []).append(row)
    if made_with["best_of"] > 1:
        by_item = {key: [_best(edits)] for key, edits in by_item.items()}
    items = tuple(_item(edits) for edits in by_item.values())
    tasks = sorted({item.task for item in items})
    lines = [line(task, [item for item in items if item.task == task], METRICS, "judge") for task in tasks]
    tables = {"all": (*lines, line(OVERALL, items, METRICS, "judge"))}
    return Result("toy", METRICS, 1.0, "items", made_with, tables, items)


def _best(edits: Sequence[EditRow]) -> EditRow:
    """The first edit with the highest reward; one without a reward only if none has one."""
    return max(edits, key=lambda row: -1.0 if row.judge is None else row.judge)


def _item(edits: Sequence[EditRow]) -> ItemRow:
    """The means over an item's edits; the judge's is None if an edit has no reward."""
    rewards = [row.judge for row in edits if row.judge is not None]
    scores: dict[str, float | None] = {
        "oracle": fmean(row.oracle["score"] for row in edits),
        "judge": sum(rewards) / len(edits) if len(rewards) == len(edits) else None,
        "done": fmean(row.oracle["done"] for row in edits),
        "preserved": fmean(row.oracle["preserved"] for row in edits),
    }
    first = edits[0]
    reasons = {f"edit {row.index}": row.reason for row in edits if row.reason is not None}
    source, edit = f"{EDITS}/{first.source}", f"{EDITS}/{first.image}"
    return ItemRow(first.key, first.task, ("all",), first.instruction, source, edit, scores, reasons=reasons)
