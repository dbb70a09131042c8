"""One row an edit, kept on disk as it is made, so that a stopped evaluation goes on where it was.

A folder holds `rows.jsonl` (first line: the settings that the rows were made with; then one line an edit) and the
pictures the rows name. An item's pictures are written before its lines, so a line never names a missing picture.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Images
from PIL.Image import Image

from editr1.data.pictures import png
from editr1.files import append_lines, write_file

SOURCE = "source"
EDITS = "edits"  # folder of the rows in what `editr1 eval toy` writes


@dataclass(frozen=True)
class Row:
    """One measured edit.

    Attributes:
        key: of the dataset item; rows before and after training are paired by (key, seed).
        task: the item's task type.
        seed: number of the edit among those of its item, from 0; equal numbers start from equal noise.
        instruction: what was asked for.
        judge: the judge's reward in [0, 1]; None where it gave none.
        reason: why it gave none.
        oracle: "score", "done" and "preserved", each in [0, 1].
        image: file name of the edit in the folder of the rows.
    """

    key: str
    task: str
    seed: int
    instruction: str
    judge: float | None
    reason: str | None
    oracle: dict[str, float]
    image: str

    @property
    def source(self) -> str:
        """File name of the source image in the folder of the rows."""
        return image_name(self.key, SOURCE)


class RowStore:
    """The rows of one evaluation in `folder`; rows that were made with other settings are dropped."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / "rows.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if _settings(self.path) != settings:
            self._write([settings])
        self.rows = read_rows(folder)

    def add(self, rows: list[Row]) -> None:
        """Append the rows of one item or more, whose pictures are there already."""
        append_lines(self.path, map(asdict, rows))
        self.rows += rows

    def keep_items(self, edits: int) -> set[str]:
        """Keys of the items whose `edits` rows are all there; the rows of half-written items are dropped."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row.key] = counts.get(row.key, 0) + 1
        whole = {key for key, count in counts.items() if count == edits}
        self.rows = [row for row in self.rows if row.key in whole]
        self._write([_settings(self.path), *map(asdict, self.rows)])
        return whole

    def save_image(self, key: str, which: int | str, image: Image) -> str:
        """Write one picture; returns its file name."""
        name = image_name(key, which)
        write_file(self.folder / name, png(image))
        return name

    def _write(self, lines: list[Any]) -> None:
        write_file(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def image_name(key: str, which: int | str) -> str:
    """File name of edit `which`, or of the source, of an item."""
    return f"{key.replace('/', '-')}_{which}.png"


def read_rows(folder: Path) -> list[Row]:
    """The rows in a folder; a last line that was cut off while being written is left out."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    return [Row(**json.loads(line)) for line in lines[1:-1]]


def open_image(folder: Path, name: str) -> Image:
    """A picture of a row, in memory."""
    with Images.open(folder / name) as image:
        return image.convert("RGB")


def _settings(path: Path) -> Any:
    """The first line of a rows file; None where there is none."""
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8").split("\n", 1)[0])
