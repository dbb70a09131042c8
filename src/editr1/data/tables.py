"""Items in parquet files, and in folders that `datasets` saved: rows of Arrow tables that are mapped into memory.

What is held of an item are its texts; its pictures are read with it, from the disk. A parquet file gives single rows
only with all of their group, so `datasets` copies it once into its cache as Arrow, and again when it has changed.
Pictures are bytes, or {"bytes", "path"} as `datasets` stores them; they are decoded by `pictures.py` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from editr1.data.pictures import Embedded
from editr1.data.rows import NAMES, TEXTS, Cell, Row, RowsDataset, named
from editr1.errors import UserError, first_line, read_json, tell

STATE, SPLITS = "state.json", "dataset_dict.json"
END = b"\xff\xff\xff\xff\0\0\0\0"
"""Last bytes of a whole stream of Arrow."""
BATCH = 100
"""Rows that are copied at a time."""
LARGE = 2**30
"""Bytes of a parquet file whose copying is told."""


@dataclass(frozen=True)
class TableCell(Embedded):
    """A picture in a cell, or in a place of a list in a cell."""

    file: Path
    column: str
    row: int
    place: int | None
    table: Any = field(compare=False, repr=False)

    def __str__(self) -> str:
        place = "" if self.place is None else f" {self.place}"
        return f"{self.file}: row {self.row}: {self.column}{place}"

    def size(self) -> int:
        return self._buffer().size

    def part(self, start: int, stop: int) -> bytes:
        return self._buffer()[start:stop].to_pybytes()

    def _buffer(self) -> Any:
        scalar = self.table.column(self.column)[self.row]
        if self.place is not None:
            scalar = scalar.values[self.place]
        return (scalar if hasattr(scalar, "as_buffer") else scalar["bytes"]).as_buffer()


class TableDataset(RowsDataset):
    """The rows of parquet files, or of Arrow files as `datasets` writes them."""

    def _rows(self, file: Path) -> Iterator[Row]:
        fields = (*FIELDS, *self._kind.stored)
        table = _map_parquet(file, fields) if file.suffix == ".parquet" else _map_arrow(file, fields)
        names = {name: column for name in fields if (column := named(table.column_names, name))}
        first, row = len(self.items), 0
        for batch in table.select([*names.values()]).to_batches():
            cells = {name: _values(batch.column(column)) for name, column in names.items()}
            for index in range(batch.num_rows):
                cell = partial(TableCell, file, row=row, table=table)
                texts = {name: cells[name][index] for name in TEXTS if name in cells}
                source = _cell(cells["source"][index], cell, names["source"], None)
                further = (cells["references"][index] if "references" in cells else None) or []
                references = [_cell(one, cell, names["references"], place) for place, one in enumerate(further)]
                mask = _cell(cells["mask"][index], cell, names["mask"], None) if "mask" in cells else None
                edits = {name: _cell(cells[name][index], cell, name, None) for name in self._kind.stored}
                yield Row(f"{file}: row {row}", f"row-{first + row}", source, references, texts, mask, edits)
                row += 1


FIELDS = ("source", "references", "mask", *TEXTS)
"""Columns that are read, besides those of stored edits."""
Fields = Sequence[str]
_EMBEDDED = object()


def _cell(value: Any, cell: Any, column: str, place: int | None) -> Cell:
    return cell(column=column, place=place) if value is _EMBEDDED else value


def _values(array: Any) -> list[Any]:
    """The values of an array of texts or pictures; bytes are `_EMBEDDED` and are not read."""
    import pyarrow.compute as pc
    from pyarrow import types

    kind = array.type
    if types.is_list(kind) or types.is_large_list(kind):
        inner = iter(_values(pc.list_flatten(array)))
        return [[next(inner) for _ in range(size or 0)] for size in pc.list_value_length(array).to_pylist()]
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return [_EMBEDDED if there else None for there in array.is_valid().to_pylist()]
    if not types.is_struct(kind) or kind.get_field_index("boxes") >= 0:
        return array.to_pylist()
    parts = {
        name: _values(pc.struct_field(array, name)) for name in ("bytes", "path") if kind.get_field_index(name) >= 0
    }
    empty = [None] * len(array)
    pairs = zip(parts.get("bytes", empty), parts.get("path", empty), strict=True)
    return [path if content is None else content for content, path in pairs]


def saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a dataset that `save_to_disk` wrote.

    Raises:
        UserError: It is one of several splits, or its list of files is damaged.
    """
    if (folder / SPLITS).is_file():
        splits = sorted(path.parent.name for path in folder.glob(f"*/{STATE}"))
        raise UserError(
            f"{folder} holds several splits; name the folder of one: {', '.join(splits) or 'none is whole'}"
        )
    state = read_json(folder / STATE)
    try:
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (TypeError, KeyError) as error:
        raise UserError(f"{folder / STATE} is damaged ({error!r}); save the dataset again") from error
    if wrong := [name for name in names if Path(name).name != name]:
        raise UserError(f"{folder / STATE}: the file {wrong[0]!r} lies outside {folder}; save the dataset again")
    if not names:
        raise UserError(f"{folder} holds no item; choose a dataset with at least one row")
    return [folder / name for name in names]


def _map_arrow(file: Path, fields: Fields) -> Any:
    """The table of an Arrow file."""
    with _readable(file) as library:
        with file.open("rb") as content:
            content.seek(-len(END), 2)
            if content.read() != END:
                raise OSError("it is cut short")
        table = library.Dataset.from_file(str(file)).data
        _refuse_missing(file, table.column_names, fields)
        return _checked(table, fields)


def _map_parquet(file: Path, fields: Fields) -> Any:
    """The table of a parquet file, from the cache of `datasets`; columns that are not read are not copied."""
    with _readable(file) as library:
        from pyarrow import parquet

        names = parquet.read_schema(file).names
        _refuse_missing(file, names, fields)
        if (size := file.stat().st_size) > LARGE:
            tell(f"reading {file} ({size / 1e9:.0f} GB); if it is new, datasets copies it into its cache first")
        columns = [column for name in fields if (column := named(names, name))]
        rows = library.Dataset.from_parquet(str(file.resolve()), columns=columns, batch_size=BATCH)
        return _checked(rows.data, fields)


def _checked(table: Any, fields: Fields) -> Any:
    """The columns that are read, whose texts are UTF-8, and whose cells lie inside the file: Arrow trusts a file."""
    table = table.table.select([column for name in fields if (column := named(table.column_names, name))])
    table.validate(full=True)
    return table


def _refuse_missing(file: Path, names: list[str], fields: Fields) -> None:
    for needed in ("source", "instruction", *fields[len(FIELDS) :]):
        if named(names, needed) is None:
            words = " or ".join(map(repr, NAMES.get(needed, (needed,))))
            raise UserError(f"{file}: there is no column {words} (columns: {', '.join(names)}); rename one")


@contextmanager
def _readable(file: Path) -> Iterator[Any]:
    """The library `datasets`, which is quiet inside; its errors are one line."""
    try:
        import datasets
        from datasets.utils import logging
    except ImportError as error:
        raise UserError(f"reading {file} needs datasets: pip install 'editr1[datasets]'") from error
    bars, verbosity = datasets.are_progress_bars_disabled(), logging.get_verbosity()
    datasets.disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield datasets
    except UserError:
        raise
    except Exception as error:  # both libraries raise whatever they stumble over in a damaged file
        raise UserError(f"cannot read {file}: {first_line(error.__cause__ or error)}; write it again") from error
    finally:
        logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
