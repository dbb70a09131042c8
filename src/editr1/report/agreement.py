"""The result of `judge agree` as a page (one file, no script, nothing from outside) and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from editr1.report.environment import write_page
from editr1.report.svg import HEIGHT, LEFT, WIDTH, Frame, chart, element, rect, share_bar, text, tip
from editr1.report.text import number, percent

FIFTHS = ("0–.2", ".2–.4", ".4–.6", ".6–.8", ".8–1")
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def write_agreement_page(result: Mapping[str, Any], out: Path) -> Path:
    """Write OUT/agreement.html for a result of `agree` and return its path."""
    methods = result["methods"]
    reference = result.get("reference")
    return write_page(
        out / "agreement.html",
        "agreement.html.j2",
        result=result,
        tasks=sorted({name for method in methods.values() for name in method["by_task"]}),
        dimensions=sorted({name for method in methods.values() for name in method["by_dimension"]}),
        rules=list(next(iter(methods.values()))["rules"]),
        bars={name: accuracy_bar(method, result["baselines"]) for name, method in methods.items()},
        distributions={
            name: distribution(name, method["distribution"], reference and reference["distribution"])
            for name, method in methods.items()
        },
        calibrations={name: calibration(name, method["calibration"]) for name, method in methods.items()},
    )


def agreement_table(result: Mapping[str, Any]) -> Table:
    """The result for the terminal."""
    title = f"{result['pairs']} pairs, tie rule {result['tie_rule']}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("", "accuracy %", "ties %", "Spearman", "s/pair", "tokens", "failed"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, m in result["methods"].items():
        ends = "" if m["ci95"] is None else f" [{percent(m['ci95'][0])}, {percent(m['ci95'][1])}]"
        cost = [number(m["wall_seconds_per_pair"], 3), number(m["tokens_per_pair"], 0), str(m["failed"])]
        accuracy = Text(percent(m["accuracy"]) + ends)
        table.add_row(name, accuracy, percent(m["tie_rate"]), number(m["spearman"], 3), *cost)
    for name, value in result["baselines"].items():
        table.add_row(name.replace("_", " "), percent(value), *[""] * 5, style="dim")
    return table


def accuracy_bar(method: Mapping[str, Any], baselines: Mapping[str, float | None]) -> Markup:
    """The accuracy with its interval; baselines are thin strokes."""
    if method["accuracy"] is None:
        return Markup("")
    marks = {name: value for name, value in baselines.items() if value is not None}
    return share_bar(method["accuracy"], method["ci95"], marks)


def distribution(name: str, shares: Sequence[float], reference: Sequence[float] | None) -> Markup:
    """Share of the scores in each fifth of the scale, beside the reference's."""
    frame = Frame(0, len(FIFTHS), 0, 1)
    parts = _grid(frame)
    pairs = [("a", f"{name}: ", shares)] + ([("quiet", "reference: ", reference)] if reference else [])
    for side, (tone, words, values) in enumerate(pairs):
        for i, value in enumerate(values):
            x, width = frame.x(i + 0.08 + 0.42 * side), frame.x(0.4) - LEFT
            top, bottom = frame.y(value), frame.y(0)
            parts.append(rect(f"bar {tone}", x, top, width, bottom - top, tip(f"{words}{value:.3f}")))
    parts += [_tick(frame.x(i + 0.5), HEIGHT - 8, word, "middle") for i, word in enumerate(FIFTHS)]
    return chart(f"Scores of {name}", parts)


def calibration(name: str, bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Share of right preferences against the difference of the scores; the dashed line is guessing."""
    if not bins:
        return Markup("")
    most = max(bin_["difference"] for bin_ in bins) or 1.0
    frame = Frame(0, most, 0, 1)
    points = [(frame.x(bin_["difference"]), frame.y(bin_["right"])) for bin_ in bins]
    half = frame.y(0.5)
    parts = _grid(frame)
    parts.append(element("line", "grid", stroke_dasharray="4 3", x1=LEFT, x2=WIDTH - 14, y1=half, y2=half))
    curve = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    parts.append(element("path", "line a", d=curve))
    for (x, y), bin_ in zip(points, bins, strict=True):
        words = f"{bin_['pairs']} pairs, difference {bin_['difference']:.3f}: {percent(bin_['right'])}% right"
        parts.append(element("circle", "bar a", tip(words), cx=x, cy=y, r=3.5))
    parts.append(_tick(LEFT, HEIGHT - 8, "0", "start"))
    parts.append(_tick(WIDTH - 14, HEIGHT - 8, f"{most:.2f} apart", "end"))
    return chart(f"Calibration of {name}", parts)


def _grid(frame: Frame) -> list[str]:
    parts = []
    for tick in TICKS:
        parts += [frame.level(tick), _tick(LEFT - 6, frame.y(tick) + 4, f"{100 * tick:g}%", "end")]
    return parts


def _tick(x: float, y: float, words: str, anchor: str) -> str:
    return text(words, float(x), float(y), anchor)
