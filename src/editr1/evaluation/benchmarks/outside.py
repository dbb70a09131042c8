"""What the edits of a benchmark keep outside of masks: PSNR, SSIM and more beside the scores of its own rule.

Masks are a folder of the user's, as `KEY.png` (a key may have folders in it), white where the edit may change
something, in the shape of the source at any size. Items without one are not measured, and count in no mean.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL.Image import Image

from editr1.data.masks import Size, digest_of, whiten
from editr1.data.pictures import SUFFIXES, inside, read_picture
from editr1.devices import pick_device
from editr1.errors import UserError, collect
from editr1.evaluation.benchmarks.base import Benchmark, Item, Line, Tables
from editr1.evaluation.benchmarks.edits import EditSettings, open_edit, open_editor
from editr1.evaluation.benchmarks.lines import OVERALL, mean
from editr1.evaluation.benchmarks.results import ItemRow, Result
from editr1.preservation.measure import CEILING, FEATURES, Measures, names_of
from editr1.training.preserving import open_measure

FAULTS_SHOWN = 20
Records = Mapping[str, Mapping[str, str]]
"""What edits were measured by (`Measure.record`), by an item's key."""


def find_masks(items: Sequence[Item], folder: Path) -> dict[str, Path]:
    """The file of each item's mask, by key.

    Raises:
        UserError: There is none of any item, or there are two of one.
    """
    files = {
        item.key: [inside(folder, f"{item.key}{suffix}", str(folder)) for suffix in sorted(SUFFIXES)] for item in items
    }
    there = {key: found for key, some in files.items() if (found := [file for file in some if file.is_file()])}
    if not there:
        raise UserError(f"--masks {folder} holds no mask of an item; the first one is {items[0].key}.png there")
    if twice := next((found for found in there.values() if len(found) > 1), None):
        raise UserError(f"--masks {folder} holds {twice[0].name} and {twice[1].name}; leave one of them")
    return {key: file for key, (file,) in there.items()}


def check_masks(items: Sequence[Item], masks: Mapping[str, Path], on_mask: Callable[[], object] = lambda: None) -> None:
    """Open every mask beside its source, so that none ends a run whose edits are made already.

    Raises:
        UserError: A line for each of the first masks that cannot be read, are black all over, or have another shape
            than their source.
    """
    faults: list[str] = []
    for item in items:
        if item.key in masks:
            with collect(faults):
                _check_shape(masks[item.key], _open_mask(masks[item.key]).size, [*_sizes(item)])
            on_mask()
    if faults:
        more = len(faults) - FAULTS_SHOWN
        raise UserError(*faults[:FAULTS_SHOWN], *([f"{more} more masks cannot be used"] if more > 0 else []))


def _record_of_masks(records: Records) -> dict[str, str]:
    """What items were measured by, as a result records it."""
    masks = {key: record["mask"] for key, record in sorted(records.items()) if record}
    if not masks:
        return {}
    models = {name: model for record in records.values() for name, model in record.items() if name == FEATURES}
    return {"masks": f"{len(masks)} masks, {zlib.crc32(json.dumps(masks).encode()):08x}", **models}


def _open_mask(file: Path) -> Image:
    mask = whiten(read_picture(file, f"mask {file}: cannot read a picture", "; replace it or leave it out"))
    if mask.getbbox() is None:
        raise UserError(f"mask {file}: it is black all over; make white what the edit may change, or leave it out")
    return mask


def _sizes(item: Item) -> Iterator[Size]:
    """Those of the source, as the editor gets it and as the judge sees it; none of what cannot be read or edited."""
    for source in filter(None, (item.original, item.source)):
        with collect([]):  # that the item has no edit is told when it is made
            yield source().size


def _check_shape(file: Path, size: Size, sources: Sequence[Size]) -> None:
    if sources and not any(_same_shape(size, source) for source in sources):
        words = " pixels, its source ".join(f"{width}x{height}" for width, height in (size, sources[0]))
        raise UserError(f"mask {file}: it has {words}; make it in the source's shape")


def _same_shape(one: Size, other: Size) -> bool:
    """Whether one is the other at another scale, whose sides are whole pixels."""
    (width, height), (other_width, other_height) = one, other
    narrowest, widest = (width - 1) * other_height, (width + 1) * other_height
    return narrowest < (height + 1) * other_width and widest > (height - 1) * other_width


def measure_edits(
    benchmark: Benchmark, settings: EditSettings, masks: Mapping[str, Path], out: Path, features: str | None = None
) -> tuple[dict[str, Measures], Records]:
    """The measures of each edit that has a mask, by key; the editor is opened for its VAE's round trip."""
    measure = open_measure(open_editor(replace(settings, lora=None), pick_device("auto")), features)
    measures, records = {}, {}
    for item in benchmark.items:
        if item.key in masks and (out / item.edit_file).is_file():
            sample = item.sample((item.original or item.source)())
            mask = _open_mask(masks[item.key])
            (measured,) = measure(sample, [open_edit(out / item.edit_file)], mask)
            measures[item.key], records[item.key] = measured.measures, measure.record(digest_of(mask))
    return measures, records


def with_outside(result: Result, measures: Mapping[str, Measures], records: Records) -> Result:
    """The result with what was measured, by an item's key, and by what; nothing may be."""
    masks = {key: record["mask"] for key, record in records.items() if record}
    items = tuple(replace(row, mask=masks.get(row.key)) for row in result.items)
    result = replace(result, items=items, made_with={**result.made_with, **_record_of_masks(records)})
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
    ceiling = ceilings_of(result, names)
    line = f"Outside of the masks: {len(rows)} of {len(result.items)} items are measured"
    means = {name: ceiling[name][OVERALL] for name in names}
    words = ", ".join(f"{name} {value:.2f}" for name, value in means.items() if value is not None)
    if not words:
        return f"{line}."
    return f"{line}; the round trip of the VAE, which is the ceiling, has {words}."


def ceilings_of(result: Result, names: Sequence[str], subset: str | None = None) -> dict[str, dict[str, float | None]]:
    """What the VAE's round trip keeps outside of the same masks, by measure and line: of a table, or of all items.

    The overall is the mean that the result's own is.
    """
    rows = [row for row in result.items if subset is None or subset in row.subsets]
    tasks = dict.fromkeys(row.task for row in rows)
    ceilings = {}
    for name in names:
        lines = {task: mean([row.scores.get(CEILING + name) for row in rows if row.task == task]) for task in tasks}
        whole = [*lines.values()] if result.overall == "types" else [row.scores.get(CEILING + name) for row in rows]
        ceilings[name] = {**lines, OVERALL: mean(whole)}
    return ceilings


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
