"""A contact sheet: some items of every task type in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Images
from PIL import ImageDraw, ImageOps
from PIL.Image import Image

from editr1.data.pictures import open_picture, picture_file
from editr1.data.samples import ItemLine

TILE = 192  # pixels
ACROSS = 6  # items of a task type
LINES = 4  # of an instruction
LETTERS = 31  # of a line


def contact_sheet(items: Sequence[ItemLine], folder: Path) -> Image:
    """One row per task type, with its first items; their pictures are in `folder`."""
    tasks = list(dict.fromkeys(item.task for item in items))
    rows = [[item for item in items if item.task == task][:ACROSS] for task in tasks]
    height = TILE + 12 * (LINES + 2)
    sheet = Images.new("RGB", (ACROSS * (TILE + 8) + 8, max(1, len(rows)) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for row, some in enumerate(rows):
        for column, item in enumerate(some):
            x, y = 8 + column * (TILE + 8), 4 + row * height
            sheet.paste(_tile([_open(folder, name) for name in (item.source, *item.references)]), (x, y))
            lines = textwrap.wrap(f"{item.task}: {item.instruction}", LETTERS)[:LINES]
            text = "\n".join(lines).encode("ascii", "replace").decode()  # Pillow's own font has no other letters
            pen.multiline_text((x, y + TILE + 4), text, fill="black", spacing=2)
    return sheet


def _tile(pictures: Sequence[Image]) -> Image:
    """The source, with its references small in the lower right corner."""
    tile = ImageOps.pad(pictures[0], (TILE, TILE), color="white")
    for number, picture in enumerate(pictures[1:]):
        small = ImageOps.expand(ImageOps.contain(picture, (TILE // 3, TILE // 3)), 2, "black")
        tile.paste(small, (TILE - small.width - number * TILE // 3, TILE - small.height))
    return tile


def _open(folder: Path, name: str) -> Image:
    where = f"an item in {folder}"
    return open_picture(picture_file(folder, name, where), where)
