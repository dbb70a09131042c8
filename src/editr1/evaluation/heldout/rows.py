"""One row per edit, written as soon as it is measured, so that a stopped evaluation can be resumed.

A folder holds `rows.jsonl` (first line: the settings of the rows; then one line per edit) and the pictures that the
rows name. An item's pictures are written before its lines, so a line never names a missing picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any

from PIL.Image import Image
from pydantic import Field

from editr1.data.pictures import inside, png, read_picture
from editr1.errors import UserError, first_line, printable
from editr1.files import JsonLines, file_name, loader, read_lines, write_file

FILE = "rows.jsonl"
SOURCE = "source"
EDITS = "edits"  # folder of the rows in what `editr1 eval toy` writes
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class EditRow:
    """One measured edit.

    Attributes:
        key: key of the item; rows before and after training are paired by (key, index).
        task: the item's task type.
        index: number of the edit among those of its item, from 0; equal numbers start from equal noise.
        instruction: the edit in words.
        judge: the judge's reward in [0, 1]; None if it gave none.
        reason: why it gave none.
        oracle: the oracle's "score", "done" and "preserved", each in [0, 1]; empty for items that have no oracle.
        image: file name of the edit in the folder of the rows.
        outside: what the edit keeps outside of the item's mask, as `preservation/measure.py` names it; empty if it was
            not measured.
        measured_by: what `outside` depends on besides source and edit: the "mask" and the model of "features"; empty
            if nobody tried to measure it, or in a row of an earlier version.
    """

    key: str
    task: str
    index: Annotated[int, Field(ge=0)]
    instruction: str
    judge: Share | None
    reason: str | None
    oracle: dict[str, Share]
    image: str
    outside: dict[str, Annotated[float, Field(ge=-1000, le=1000)]] = field(default_factory=dict)
    measured_by: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """File name of the source image in the folder of the rows: as the edit's, whatever version named that."""
        start = self.image.removesuffix(f"_{self.index}.png")
        return image_name(self.key, SOURCE) if start == self.image else f"{start}_{SOURCE}.png"


_load = loader(EditRow)


class RowStore:
    """The rows of one evaluation in `folder`; a UserError if it holds rows of other settings.

    Of several ranks, the one that `writes` keeps the file; all have all rows, and each writes its own pictures.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], writes: bool = True) -> None:
        self.folder = folder
        remedy = "give another folder, or move this one away"
        self._lines = JsonLines(folder / FILE, "edits", remedy, head=settings, load=_from_line, writes=writes)
        self.rows = self._lines.rows
        self._lines.replace(map(_to_line, self.rows))

    def add(self, rows: Sequence[EditRow]) -> None:
        """Append the rows of whole items, whose pictures are written already."""
        self._lines.append(map(_to_line, rows))
        self.rows += rows

    def keep_items(self, edits: int) -> set[str]:
        """Keys of the items whose `edits` rows all have a reward; rows of the others are dropped, to be made again."""
        counts = Counter(row.key for row in self.rows if row.judge is not None)
        whole = {key for key, number in counts.items() if number == edits}
        self.rows = [row for row in self.rows if row.key in whole]
        self._lines.replace(map(_to_line, self.rows))
        return whole

    def replace(self, rows: Sequence[EditRow]) -> None:
        """Put rows in the place of those of the same edits."""
        new = {(row.key, row.index): row for row in rows}
        self.rows = [new.get((row.key, row.index), row) for row in self.rows]
        self._lines.replace(map(_to_line, self.rows))

    def save_image(self, key: str, which: int | str, image: Image) -> str:
        """Write one picture; returns its file name."""
        name = image_name(key, which)
        write_file(self.folder / name, png(image))
        return name


def image_name(key: str, which: int | str) -> str:
    """File name of edit `which`, or of the source, of an item; no two keys share one."""
    return f"{file_name(key)}_{which}.png"


def read_rows(folder: Path) -> list[EditRow]:
    """The rows in a folder; a last line that was cut off while being written is left out."""
    try:
        return [_from_line(**line) for line in read_lines(folder / FILE)[1:]]
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / FILE} is no file of edits: {first_line(error)}") from error


def move_aside(folder: Path, weights: str) -> Path | None:
    """Move the rows and pictures of other weights beside `folder`, to their name; None if the folder holds none."""
    head, *rows = read_lines(folder / FILE) if (folder / FILE).exists() else [{}]
    if not rows:
        return None
    name = head.get("weights") if isinstance(head, dict) else None
    if not isinstance(name, str) or file_name(name) != name:
        raise UserError(f"{folder / FILE} names no weights in its first line; move {folder} away")
    if name == weights:
        return None
    places = map(folder.with_name, chain([name], (f"{name}.{number}" for number in count(2))))
    place = next(place for place in places if not place.exists())
    folder.rename(place)
    return place


def image_path(folder: Path, name: str) -> Path:
    """File of a picture of a row; a UserError if it lies outside the folder of the rows."""
    try:
        return inside(folder, name, str(folder / FILE))
    except (TypeError, ValueError) as error:  # no text, or one with a NUL
        raise UserError(f"{folder / FILE}: {name!r} is no file name") from error


def open_image(folder: Path, name: str) -> Image:
    """A picture of a row, in memory; a UserError if it lies outside the folder of the rows."""
    path = image_path(folder, name)
    return read_picture(path, f"cannot read the picture {printable(str(path))}")


def _to_line(row: EditRow) -> dict[str, Any]:
    """The row as the file has it; there, the index is called "seed"."""
    line = {"seed" if name == "index" else name: value for name, value in asdict(row).items()}
    return {name: value for name, value in line.items() if value or name not in ("outside", "measured_by")}


def _from_line(*, seed: int, **fields: Any) -> EditRow:
    """A row; a ValueError names what is wrong with it."""
    row = _load(index=seed, **fields)
    if row.oracle and "score" not in row.oracle:
        raise ValueError("oracle has no score")
    return row
