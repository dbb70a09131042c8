"""What the edits of a benchmark keep outside of masks: PSNR, SSIM and more beside the scores of its own rule.

Masks are a folder of the user's, as `KEY.png` (a key may have folders in it), white where the edit may change
something. Items without one are not measured, and count in no mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from editr1.data.masks import whiten
from editr1.data.pictures import SUFFIXES, inside, open_picture
from editr1.devices import pick_device
from editr1.errors import UserError
from editr1.evaluation.benchmarks.base import Benchmark, Item, Line, Tables
from editr1.evaluation.benchmarks.edits import EditSettings, open_edit, open_editor
from editr1.evaluation.benchmarks.lines import OVERALL, mean
from editr1.evaluation.benchmarks.results import ItemRow, Result
from editr1.preservation.measure import CEILING, Measures, names_of
from editr1.training.preserving import open_measure


def find_masks(items: Sequence[Item], folder: Path) -> dict[str, Path]:
    """The file of each item's mask, by key.

    Raises:
        UserError: There is none of any item.
    """
    files = {
        item.key: [inside(folder, f"{item.key}{suffix}", str(folder)) for suffix in sorted(SUFFIXES)] for item in items
    }
    masks = {key: file for key, some in files.items() for file in some if file.is_file()}
    if not masks:
        raise UserError(f"--masks {folder} holds no mask of an item; the first one is {items[0].key}.png there")
    return masks


def measure_edits(
    benchmark: Benchmark, settings: EditSettings, masks: Mapping[str, Path], out: Path, features: str | None = None
) -> dict[str, Measures]:
    """The measures of each edit that has a mask, by key; the editor is opened for its VAE's round trip."""
    measure = open_measure(open_editor(replace(settings, lora=None), pick_device("auto")), features)
    measures = {}
    for item in benchmark.items:
        if item.key in masks and (out / item.edit_file).is_file():
            sample = item.sample((item.original or item.source)())
            mask = whiten(open_picture(masks[item.key], str(masks[item.key].parent)))
            (measured,) = measure(sample, [open_edit(out / item.edit_file)], mask)
            measures[item.key] = measured.measures
    return measures


def with_outside(result: Result, measures: Mapping[str, Measures]) -> Result:
    """The result with what was measured, by an item's key; as it is if that is nothing."""
    names = names_of(measures.values())
    if not names:
        return result
    items = tuple(_with_scores(row, measures.get(row.key, {}), names) for row in result.items)
    tables: Tables = {
        subset: _with_means(lines, [row for row in items if subset in row.subsets], result.overall, names)
        for subset, lines in result.tables.items()
    }
    return replace(result, metrics=(*result.metrics, *names), items=items, tables=tables)


def outside_line(result: Result) -> str | None:
    """How many items were measured, and the ceiling, for people; None if none was."""
    rows = [row.scores for row in result.items if row.scores.get("psnr") is not None]
    if not rows:
        return None
    names = [name for name in result.metrics if rows[0].get(CEILING + name) is not None]
    ceiling = {name: mean([row.get(CEILING + name) for row in rows]) for name in names}
    line = f"Outside of the masks: {len(rows)} of {len(result.items)} items are measured"
    words = ", ".join(f"{name} {value:.2f}" for name, value in ceiling.items() if value is not None)
    if not words:
        return f"{line}."
    return f"{line}; the round trip of the VAE, which is the ceiling, has {words}."


def _with_scores(row: ItemRow, measures: Measures, names: Sequence[str]) -> ItemRow:
    every = (*names, *(CEILING + name for name in names))
    return replace(row, scores={**row.scores, **{name: measures.get(name) for name in every}})


def _with_means(lines: Sequence[Line], rows: Sequence[ItemRow], overall: str, names: Sequence[str]) -> tuple[Line, ...]:
    """The lines of a table, with the means of what was measured; of the overall line as the result says."""
    types = [
        replace(line, means={**line.means, **_means([row for row in rows if row.task == line.name], names)})
        for line in lines[:-1]
    ]
    last = lines[-1]
    assert last.name == OVERALL, "the last line of a table"
    by_types = {name: mean([line.means[name] for line in types]) for name in names}
    total = _means(rows, names) if overall == "items" else by_types
    return (*types, replace(last, means={**last.means, **total}))


def _means(rows: Sequence[ItemRow], names: Sequence[str]) -> dict[str, float | None]:
    return {name: mean([row.scores[name] for row in rows]) for name in names}
