"""A benchmark's result as one self-contained page: tables, how it was made, a gallery by type, what has no score."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image as Images
from PIL import ImageOps
from PIL.Image import Image

from editr1.evaluation.benchmarks.results import TITLES, Result, Row, cell_text, misread, texts
from editr1.files import write_file
from editr1.report.environment import environment
from editr1.report.run import SIDE, picture_url, signed

SHOWN = 6  # items of a type in the gallery
TOLD = 60  # answers that the official rule drops or misreads, shown in full
QUALITY = 85  # of the JPEG in the page; the files beside it are whole


def write_page(result: Result, out: Path) -> Path:
    """Write OUT/index.html and return its path."""
    listed = misread(result)
    page = (
        templates()
        .get_template("benchmark.html.j2")
        .render(
            title=TITLES[result.benchmark],
            name=out.resolve().name,
            result=result,
            made_with={key: value for key, value in result.made_with.items() if value is not None},
            gallery=gallery(result, out),
            listed=listed[:TOLD],
            listed_count=len(listed),
        )
    )
    path = out / "index.html"
    write_file(path, page.encode())
    return path


def templates() -> Environment:
    """The templates of benchmarks."""
    made = environment()
    made.filters.update(number=cell_text, signed=signed, texts=texts)
    return made


def gallery(result: Result, out: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Cards by type, from the best score to the worst, evenly spread over the type's items."""
    metric = result.metrics[0]
    shown = []
    for task in dict.fromkeys(row.task for row in result.items):
        rows = [row for row in result.items if row.task == task and row.edit and row.scores[metric] is not None]
        ranked = sorted(rows, key=lambda row: -(row.scores[metric] or 0.0))
        shown.append((task, [card(row, out) for row in spread(ranked, SHOWN)]))
    return shown


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows, the first and the last among them, at even distances."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]


def card(row: Row, out: Path) -> dict[str, Any]:
    """One item: source, edit and scores."""
    return {"row": row, "pictures": [("source", thumbnail(out, row.source)), ("edit", thumbnail(out, row.edit))]}


def thumbnail(out: Path, name: str) -> str:
    """A picture of a result as a data URL, "" where it is missing; never one from outside the folder."""
    path = (out / name).resolve()
    if not name or not path.is_relative_to(out.resolve()) or not path.is_file():
        return ""
    with Images.open(path) as opened:
        image = opened.convert("RGB")
    return picture_url(image) if max(image.size) <= SIDE else _jpeg_url(image)


def _jpeg_url(image: Image) -> str:
    buffer = io.BytesIO()
    ImageOps.contain(image, (SIDE, SIDE)).save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
