"""Rows of a dataset on disk: parquet files, or a folder that the `datasets` library saved (Arrow).

The pictures of a row stay in the file until they are asked for, so that thousands of rows do not sit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from editr1.data.pictures import decode, open_picture, picture_file
from editr1.errors import UserError

Opener = Callable[[], Image]


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes:
        cells: Cells by column; those of pictures may be missing.
        where: Name of the row in messages.
        image: Returns what opens the picture in a column, or in a place of a list in a column.
    """

    cells: Mapping[str, Any]
    where: str
    image: Callable[[str, int | None], Opener]

    def text(self, column: str) -> str:
        """A cell that must be text."""
        value = self.cells.get(column)
        if not isinstance(value, str) or not value:
            raise UserError(f"{self.where}: {column} must be text, not {str(value)[:40]!r}")
        return value

    def number(self, column: str) -> float | None:
        """A cell that may be a finite number."""
        value = self.cells.get(column)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
            return None
        return float(value)


def columns_of(file: Path) -> frozenset[str]:
    """Names of the columns of a parquet or Arrow file."""
    return frozenset(_schema(file).names)


def read_table(file: Path) -> list[TableRow]:
    """All rows of a parquet or Arrow file, without their pictures.

    Raises:
        UserError: the file is neither, or pyarrow is missing.
    """
    import pyarrow

    types = pyarrow.types
    plain = [f.name for f in _schema(file) if not types.is_nested(f.type) and not types.is_binary(f.type)]
    rows = _parquet(file).read(columns=plain) if file.suffix == ".parquet" else _arrow(file).select(plain)
    return [
        TableRow(cells, f"{file}: row {i}", partial(partial, _stored, file, i))
        for i, cells in enumerate(rows.to_pylist())
    ]


def picture(cell: Any, folder: Path, where: str) -> Opener:
    """What opens a picture that a cell names: a path inside `folder`, or {"bytes", "path"} as datasets store it."""
    if isinstance(cell, Mapping):
        if isinstance(cell.get("bytes"), bytes):
            return partial(decode, cell["bytes"], where)
        cell = cell.get("path")
    if not isinstance(cell, str) or not cell:
        raise UserError(f"{where}: a picture must be a path or embedded bytes, not {str(cell)[:40]!r}")
    return partial(open_picture, picture_file(folder, cell, where), where)


def place_of(cell: Any, place: int | None, where: str) -> Any:
    """A cell, or one of the two that it must hold."""
    if place is None:
        return cell
    if not isinstance(cell, (list, tuple)) or len(cell) != 2:
        raise UserError(f"{where}: expected a list of two pictures")
    return cell[place]


def _stored(file: Path, row: int, column: str, place: int | None) -> Image:
    """The picture in one cell."""
    where = f"{file}: row {row}: {column}"
    if file.suffix == ".parquet":
        metadata, group, inside = _parquet(file).metadata, 0, row
        while inside >= metadata.row_group(group).num_rows:
            inside -= metadata.row_group(group).num_rows
            group += 1
        cell = _group_cells(file, group, column)[inside].as_py()
    else:
        cell = _arrow(file).column(column)[row].as_py()
    return picture(place_of(cell, place, where), file.parent, where)()


def _schema(file: Path) -> Any:
    return _parquet(file).schema_arrow if file.suffix == ".parquet" else _arrow(file).schema


def _parquet(file: Path) -> Any:
    pyarrow = _pyarrow(file)
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {file}: {error}") from error


@lru_cache(maxsize=4)
def _arrow(file: Path) -> Any:
    """The table in an Arrow stream, mapped into memory: nothing is read before it is asked for."""
    pyarrow = _pyarrow(file)
    try:
        return pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {file}: {error}") from error


def _pyarrow(file: Path) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(f"reading {file} needs pyarrow: pip install pyarrow") from error
    return pyarrow


@lru_cache(maxsize=4)
def _group_cells(file: Path, group: int, column: str) -> Any:
    """One column of one row group: neighbours are asked for one after another."""
    return _parquet(file).read_row_group(group, columns=[column]).column(column)
