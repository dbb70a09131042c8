"""The form of a dataset on the disk, known by its files: a data.jsonl, parquet, a saved dataset, or shards."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from editr1.data.columns import columns_of
from editr1.data.edited import EDITED, PreferenceLine, VoteLine, VotesDataset, votes_file
from editr1.data.line_index import LineIndex
from editr1.data.lines import Fault, read_lines
from editr1.data.long import LongDataset
from editr1.data.samples import FILES, ItemLine, JsonlDataset, StoredDataset, file_of
from editr1.data.shards import ShardDataset, pictures_named
from editr1.data.tables import SPLITS, STATE, TableDataset, saved_files
from editr1.errors import UserError

SUFFIXES = {".parquet": TableDataset, ".tar": ShardDataset}
PATTERN = set("*?[")
LOOKED_AT = 100
"""Lines of which one must have a stored edit, if a dataset has any: the first ones may be wrong."""


class _Keys(BaseModel):
    """A line with any keys."""

    model_config = ConfigDict(extra="allow")


def open_stored(
    path: Path,
    root: Path | None = None,
    faults: list[str] | None = None,
    most: int | None = None,
    kind: type[ItemLine] = ItemLine,
) -> StoredDataset:
    """The items that a path names.

    Args:
        path: A folder with a data.jsonl or a train_metadata.jsonl; a parquet file or a folder of them; a folder that
            `save_to_disk` of `datasets` wrote; a .tar of webdataset or a folder of them; or a pattern of such files,
            such as data/train-*.parquet.
        root: A folder that may hold pictures too, which are named by absolute paths or behind links.
        faults: Receives one line for everything that is wrong in lines and rows, which are left out; None raises the
            first.
        most: Lines of a data.jsonl that are checked now at most: a sample of those of a longer one. None for all.
        kind: Form of the lines; of preferences, a path may also name what `editr1 judge arena` writes.

    Raises:
        UserError: There is nothing of these forms, or as the datasets of these forms.
    """
    if kind is PreferenceLine and (votes := votes_file(path)) is not None:
        return VotesDataset(votes, root, faults)
    if any((path / name).is_file() for name in FILES):
        file, form = file_of(path, kind)
        if most is not None and len(index := LineIndex(file)) > most:
            return LongDataset(path, index, form, most, root, faults)
        return JsonlDataset(path, root, faults, kind)
    if any((path / name).is_file() for name in (STATE, SPLITS)):
        return TableDataset(path, saved_files(path), root, faults, kind)
    files = _files(path)
    suffixes = sorted({file.suffix for file in files})
    if not files:
        return JsonlDataset(path, root, faults, kind)
    if len(suffixes) > 1:
        raise UserError(f"{path} holds {' and '.join(suffixes)} files; name those of one kind: {path}/*{suffixes[0]}")
    return SUFFIXES[suffixes[0]](path, files, root, faults, kind)


def kind_of(path: Path) -> type[ItemLine]:
    """The kind of items that a path names, where no config says it: with the edits of preferences or pairs, or without.

    It is told by the keys of lines, the columns, or the names of files in a shard. Of what cannot be read, it is that
    of items without edits; who opens that is told why.

    Raises:
        UserError: There are edits of both kinds.
    """
    kinds = list[type[ItemLine]]()
    with suppress(UserError):
        kinds = next(filter(None, map(_kinds, _names(path))), kinds)
    if len(kinds) > 1:
        raise UserError(
            f"{path} has chosen or rejected edits, of preferences, and targets, of pairs; leave one kind out"
        )
    return kinds[0] if kinds else ItemLine


def _kinds(names: Collection[str]) -> list[type[ItemLine]]:
    """The kinds of stored edits that have one of these names."""
    if {*VoteLine.stored} & {*names}:
        return [PreferenceLine]
    return [kind for kind in EDITED if {*kind.stored} & {*names}]


def _names(path: Path) -> Iterator[Collection[str]]:
    """What the first lines, the table or the shard that a path names have of each item."""
    file, form = file_of(path)
    lines = votes_file(path) or file
    if lines.is_file():
        for _, line in islice(read_lines(lines, _Keys, "the dataset"), LOOKED_AT if form is ItemLine else 0):
            yield () if isinstance(line, Fault) else line.model_extra or ()
        return
    saved = any((path / name).is_file() for name in (STATE, SPLITS))
    for first in (saved_files(path) if saved else _files(path))[:1]:
        yield pictures_named(first) if first.suffix == ".tar" else columns_of(first)


def _files(path: Path) -> list[Path]:
    """The parquet files and shards that a path names, sorted by name."""
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = [*path.iterdir()]
    else:
        found = [*path.parent.glob(path.name)] if PATTERN & {*path.name} else []
    return sorted(file for file in found if file.suffix in SUFFIXES and file.is_file())
