"""Items in files that hold many of them with their pictures: what tables and shards have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editr1.data.pictures import Embedded, Picture, picture_file
from editr1.data.samples import REMEDY, Item, ItemLine, StoredDataset
from editr1.errors import UserError, collect, first_problem, printable

NAMES = {"source": ("source", "image"), "instruction": ("instruction", "prompt")}
"""Names that a field has in our layout and in that of Edit-R1's released code; the others have one."""
TEXTS = ("instruction", "requirement", "task", "key")
Cell = Embedded | str | None
"""A picture, or the path of one."""


@dataclass(frozen=True)
class Row:
    """What a file says of one item, not checked yet.

    Attributes:
        where: Its place, which begins messages.
        name: Its key, if it has none of its own.
        source: The source image.
        references: The further ones.
        mask: The mask: as a picture, or as the boxes of a `data.jsonl`.
        texts: Values by the names in `TEXTS`.
        edits: Stored edits, by the names in `ItemLine.stored`.
    """

    where: str
    name: str
    source: Cell
    references: Sequence[Cell]
    texts: Mapping[str, Any]
    mask: Embedded | Any = None
    edits: Mapping[str, Cell] = field(default_factory=dict)


class RowsDataset(StoredDataset):
    """The items of some files, in their order, by the rules of a `data.jsonl`; further columns are passed over.

    Args:
        place: What the user calls the files: one of them, their folder, or a pattern.
        files: The files.
        root: A folder that may hold pictures too, if they are named by paths.
        faults: Receives one line for everything that is wrong; None raises the first.
        kind: Form of the lines that the rows would be.

    Raises:
        UserError: A row is wrong (the message names file and row), or a file cannot be read.
    """

    items: list[Item]

    def __init__(
        self,
        place: Path,
        files: Sequence[Path],
        root: Path | None = None,
        faults: list[str] | None = None,
        kind: type[ItemLine] = ItemLine,
    ) -> None:
        self._kind = kind
        self.file, self.folder, self.root = place, files[0].parent.resolve(), root
        self.items = []
        keys: dict[str, str] = {}
        for file in files:
            with collect(faults):
                for row in self._rows(file):
                    with collect(faults):
                        self._add(row, keys)
        with collect(faults):
            if not self.items and not faults:
                raise UserError(f"{place} holds no item; choose files with at least one row")

    @abstractmethod
    def _rows(self, file: Path) -> Iterator[Row]:
        """The rows of a file; a UserError if it cannot be read."""

    def _add(self, row: Row, keys: dict[str, str]) -> None:
        line = _checked(row, self._kind)
        key = line.key or row.name
        if keys.setdefault(key, row.where) != row.where:
            raise UserError(f"{row.where}: {keys[key]} has the key {printable(key)!r} too; keys must be unique")
        masks = [row.mask] if isinstance(line.mask, str) else []
        cells = (row.source, *row.references, *masks, *(row.edits[name] for name in line.stored))
        self.items.append((line, key, [self._picture(cell, row.where) for cell in cells]))

    def _picture(self, cell: Cell, where: str) -> Picture:
        if isinstance(cell, Embedded):
            return cell
        return picture_file(self.folder, str(cell), where, self.root, remedy=REMEDY)


def _checked(row: Row, kind: type[ItemLine]) -> ItemLine:
    """The line that a row would be in a `data.jsonl`."""
    texts = {name: value for name, value in row.texts.items() if value is not None}
    pictures = {"source": row.source, **row.edits}
    names = {name: str(cell) for name, cell in pictures.items() if cell is not None}
    mask = {"mask": str(row.mask) if isinstance(row.mask, Embedded) else row.mask}
    try:
        return kind.model_validate({**names, **texts, **mask, "references": [*map(_name, row.references)]})
    except ValidationError as error:
        raise UserError(f"{row.where}: {first_problem(error)}") from error


def _name(cell: Cell) -> str | None:
    return None if cell is None else str(cell)


def named(names: Iterable[str], field: str) -> str | None:
    """The name that a field has among `names`; None if it is not there."""
    have = {*names}
    return next((name for name in NAMES.get(field, (field,)) if name in have), None)
