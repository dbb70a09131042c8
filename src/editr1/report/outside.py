"""What must not change, in the page of a run: curves of the training edits beside the VAE's round trip, and by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from editr1.report.records import shown
from editr1.report.svg import Line, line_chart

TITLES = {
    "psnr": "PSNR outside of the masks (dB)",
    "ssim": "SSIM outside of the masks",
    "features": "Likeness of features outside of the masks",
    "structure": "Structure of edits of the whole picture",
}
NOTE = "The ceiling is the source's round trip through the editor's VAE, without any edit; an edit rarely keeps more."
MEASURED = "Share of the edits that are measured"
Charts = list[tuple[str, Markup, str]]
"""Title, chart, and the words under it."""


def outside_charts(rows: list[dict[str, Any]]) -> Charts:
    """All measures with their ceilings, and how many edits have them; empty if nothing was measured."""
    charts = []
    for name, title in TITLES.items():
        lines = [Line("edits", _column(rows, name), "a"), Line("ceiling", _column(rows, f"ceiling_{name}"), "quiet")]
        charts.append((title, line_chart(title, _steps(rows), lines), NOTE))
    words = "Others have no mask, or one that leaves nothing outside."
    line = Line("measured", _column(rows, "measured"), "quiet")
    charts.append((MEASURED, line_chart(MEASURED, _steps(rows), [line], (0, 1)), words))
    return [each for each in charts if each[1]] if any(any(_column(rows, name)) for name in TITLES) else []


def trained_words(config: Mapping[str, Any]) -> str:
    """What of the run's training sees the outside, by its configuration."""
    kept = config.get("preservation") or {}
    names = [name for name, reward in (config.get("rewards") or {}).items() if reward["kind"] == "preservation"]
    found = {
        f"the reward of kind preservation ({', '.join(names)})": bool(names),
        "the loss by preservation.weight": bool(kept.get("weight")),
        "the advantages by region": kept.get("advantages") == "region",
    }
    told = [words for words, is_there in found.items() if is_there]
    return f"Trained on it: {', '.join(told)}." if told else "Nothing is trained on it."


def task_charts(rows: list[dict[str, Any]]) -> Charts:
    """PSNR of each task on one scale; empty if there is one task only."""
    part = "outside_by_task"
    names = sorted({name for row in rows for name in row.get(part, {}) if name.startswith("psnr/")})
    columns = {name.removeprefix("psnr/"): _column(rows, name, part) for name in names}
    values = [value for column in columns.values() for value in column if value is not None]
    if len(columns) < 2 or not values:
        return []
    span = min(values), max(values)
    return [
        (task, line_chart(task, _steps(rows), [Line(task, column, "a")], span), "") for task, column in columns.items()
    ]


def _steps(rows: list[dict[str, Any]]) -> list[int]:
    return [row["step"] for row in rows]


def _column(rows: list[dict[str, Any]], name: str, part: str = "outside") -> list[float | None]:
    return [shown(row.get(part, {}).get(name)) for row in rows]
