"""The form of a dataset on the disk, known by its files: a data.jsonl, parquet, a saved dataset, or shards."""

from __future__ import annotations

from pathlib import Path

from editr1.data.edited import PreferenceLine, VotesDataset, votes_file
from editr1.data.line_index import LineIndex
from editr1.data.long import LongDataset
from editr1.data.samples import FILES, ItemLine, JsonlDataset, StoredDataset, file_of
from editr1.data.shards import ShardDataset
from editr1.data.tables import SPLITS, STATE, TableDataset, saved_files
from editr1.errors import UserError

SUFFIXES = {".parquet": TableDataset, ".tar": ShardDataset}
PATTERN = set("*?[")


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


def _files(path: Path) -> list[Path]:
    """The parquet files and shards that a path names, sorted by name."""
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = [*path.iterdir()]
    else:
        found = [*path.parent.glob(path.name)] if PATTERN & {*path.name} else []
    return sorted(file for file in found if file.suffix in SUFFIXES and file.is_file())
