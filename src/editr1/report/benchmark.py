"""A benchmark's result as one self-contained page: tables, how it was made, a gallery by type, what has no score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editr1.evaluation.benchmarks.outside import outside_line
from editr1.evaluation.benchmarks.results import TITLES, ItemRow, Result, edits_line, misread
from editr1.report.environment import write_page
from editr1.report.tables import write_tables
from editr1.report.thumbnails import thumbnail

GALLERY_ITEMS = 6  # of each type
MISREAD_ITEMS = 60  # shown in full, of those that the official rule drops or misreads


def write_benchmark_report(result: Result, out: Path) -> Path:
    """Write OUT/results.md, OUT/results.tex and OUT/index.html; return the page's path."""
    name, line = out.resolve().name, outside_line(result)
    outside = "" if line is None else f"\n{line}\n"
    write_tables({name: result}, out / "results", notes=f"\n{edits_line(result)}\n{outside}")
    misread_rows = misread(result)
    return write_page(
        out / "index.html",
        "benchmark.html.j2",
        title=TITLES[result.benchmark],
        name=name,
        result=result,
        made_with={key: value for key, value in result.made_with.items() if value is not None},
        gallery=type_gallery(result, out),
        misread=misread_rows[:MISREAD_ITEMS],
        misread_count=len(misread_rows),
        outside=line,
    )


def type_gallery(result: Result, out: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Cards by type, from the best score to the worst, evenly spread over the type's items."""
    metric = result.metrics[0]
    gallery = []
    for task in dict.fromkeys(row.task for row in result.items):
        rows = [row for row in result.items if row.task == task and row.edit and row.scores[metric] is not None]
        ranked = sorted(rows, key=lambda row: -(row.scores[metric] or 0.0))
        gallery.append((task, [item_card(row, out) for row in spread(ranked, GALLERY_ITEMS)]))
    return gallery


def spread(rows: Sequence[ItemRow], count: int) -> list[ItemRow]:
    """At most `count` rows at even distances, the first and the last among them."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (count - 1))] for i in range(count)]


def item_card(row: ItemRow, out: Path) -> dict[str, Any]:
    """One item: source, edit and scores."""
    return {"row": row, "pictures": [("source", thumbnail(out, row.source)), ("edit", thumbnail(out, row.edit))]}
