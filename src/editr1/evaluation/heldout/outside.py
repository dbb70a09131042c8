"""What held-out edits keep outside of the masks of their items, beside their rewards.

An edit is measured when it is made. One that was made before, without a measure, by another mask or another vision
model, is measured from its picture, which is saved without a loss: the numbers are those of an edit that is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain

from PIL.Image import Image

from editr1.data.masks import digest_of
from editr1.data.samples import EditDataset, EditSample
from editr1.errors import UserError
from editr1.evaluation.heldout.rows import EditRow, RowStore, open_image
from editr1.preservation.measure import NO_MASK
from editr1.training.distributed import World
from editr1.training.preserving import Measure

CHUNK = 8
"""Items that are edited, judged in one batch, measured, and written."""
Masks = Mapping[str, str | None]
"""The digest of each item's mask, None without one, by key in the order of the dataset."""
Wanted = Mapping[str, dict[str, str]]
"""What the edits of each item are to be measured by (`Measure.record`), by key in the order of the dataset."""


def masks_of(dataset: EditDataset) -> Masks:
    """The masks; all items are read, and no more than one item's pictures are in memory."""
    samples = (dataset[index] for index in range(len(dataset)))
    return {sample.key: _digest(sample) for sample in samples}


def wanted_of(masks: Masks, measure: Measure | None) -> Wanted:
    """What is to be measured."""
    return {key: measure.record(digest) if measure else {} for key, digest in masks.items()}


def with_outside(
    rows: Sequence[EditRow], measure: Measure, samples: Sequence[EditSample], edits: Sequence[Sequence[Image]]
) -> list[EditRow]:
    """The rows of several items, with what their edits keep outside of the masks."""
    every, records = [], []
    for sample, images in zip(samples, edits, strict=True):
        every.append(measure(sample, images, sample.mask or NO_MASK))
        records += [measure.record(_digest(sample))] * len(images)
    measured = zip(rows, chain(*every), records, strict=True)
    return [replace(row, outside=each.measures, measured_by=record) for row, each, record in measured]


def measure_again(
    store: RowStore,
    dataset: EditDataset,
    wanted: Wanted,
    measure: Measure | None,
    world: World,
    on_items: Callable[[int], None] = lambda count: None,
) -> int:
    """Measure the edits in a store that were not measured as `wanted`, by their pictures; returns of how many items.

    Raises:
        UserError: A picture is gone.
    """
    if measure is None:
        return 0
    by_key: dict[str, list[EditRow]] = {}
    for row in store.rows:
        by_key.setdefault(row.key, []).append(row)
    stale = [
        index
        for index, (key, record) in enumerate(wanted.items())
        if any(not _is_measured(row, record) for row in by_key.get(key, []))
    ]
    for turn in turns(stale, world):
        own = [dataset[index] for index in turn[world.worker]] if world.speaks and world.worker < len(turn) else []
        rows = [row for sample in own for row in by_key[sample.key]]
        edits = [[_picture(store, row) for row in by_key[sample.key]] for sample in own]
        new = [asdict(row) for row in with_outside(rows, measure, own, edits)]
        store.replace([EditRow(**row) for some in world.gather(new, "measures of edits") for row in some])
        on_items(sum(map(len, turn)))
    return len(stale)


def as_asked(rows: Sequence[EditRow], measure: Measure | None) -> list[EditRow]:
    """The rows without what is not asked for now, which a part of them may have of an earlier session."""
    names = measure.names if measure else ()
    return [replace(row, outside={name: value for name, value in row.outside.items() if name in names}) for row in rows]


def turns(indices: Sequence[int], world: World) -> Iterator[list[Sequence[int]]]:
    """The items in turns: a chunk for each worker."""
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    for start in range(0, len(chunks), world.workers):
        yield chunks[start : start + world.workers]


def _digest(sample: EditSample) -> str | None:
    return None if sample.mask is None else digest_of(sample.mask)


def _is_measured(row: EditRow, record: Mapping[str, str]) -> bool:
    if not record:
        return not row.outside
    return all(row.measured_by.get(name) == value for name, value in record.items())


def _picture(store: RowStore, row: EditRow) -> Image:
    try:
        return open_image(store.folder, row.image)
    except UserError as error:
        raise UserError(
            f"{error}, so what the edit keeps outside of its mask cannot be measured: put it back, or move "
            f"{store.folder} away, and its edits are made again"
        ) from error
