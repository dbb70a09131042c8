"""The result of `judge agree` as a page (one file, no script, nothing from outside) and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from editr1.files import write_file
from editr1.report.environment import environment
from editr1.report.svg import HEIGHT, LEFT, WIDTH, Frame

FIFTHS = ("0–.2", ".2–.4", ".4–.6", ".6–.8", ".8–1")
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def render(result: Mapping[str, Any]) -> str:
    """The page for what `agree` returns."""
    templates = environment()
    templates.filters["percent"] = percent
    templates.filters["number"] = lambda value, places=2: "–" if value is None else f"{value:.{places}f}"
    methods = result["methods"]
    names = sorted({name for method in methods.values() for name in method["by_task"]})
    dimensions = sorted({name for method in methods.values() for name in method["by_dimension"]})
    rules = list(next(iter(methods.values()))["rules"])
    reference = result.get("reference")
    return templates.get_template("agreement.html.j2").render(
        result=result,
        tasks=names,
        dimensions=dimensions,
        rules=rules,
        bars={name: interval(method, result["baselines"]) for name, method in methods.items()},
        distributions={
            name: bars(name, method["distribution"], reference and reference["distribution"])
            for name, method in methods.items()
        },
        calibrations={name: curve(name, method["calibration"]) for name, method in methods.items()},
    )


def write_page(result: Mapping[str, Any], out: Path) -> Path:
    """Write agreement.html into `out` and return its path."""
    path = out / "agreement.html"
    write_file(path, render(result).encode())
    return path


def table(result: Mapping[str, Any]) -> Table:
    """The result for the terminal."""
    shown = Table(
        title=f"{result['pairs']} pairs, tie rule {result['tie_rule']}", box=SIMPLE_HEAD, pad_edge=False, padding=0
    )
    for column in ("", "accuracy %", "ties %", "Spearman", "s/pair", "tokens", "failed"):
        shown.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, m in result["methods"].items():
        ends = "" if m["ci95"] is None else f" [{percent(m['ci95'][0])}, {percent(m['ci95'][1])}]"
        rank = "–" if m["spearman"] is None else f"{m['spearman']:.3f}"
        cost = [f"{m['wall_seconds_per_pair']:.3f}", f"{m['tokens_per_pair']:.0f}", str(m["failed"])]
        shown.add_row(name, Text(percent(m["accuracy"]) + ends), percent(m["tie_rate"]), rank, *cost)
    for name, value in result["baselines"].items():
        shown.add_row(name.replace("_", " "), percent(value), *[""] * 5, style="dim")
    return shown


def percent(value: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def interval(method: Mapping[str, Any], baselines: Mapping[str, float | None]) -> Markup:
    """The accuracy with its interval on [0, 1]; baselines are thin strokes."""
    if method["accuracy"] is None:
        return Markup("")
    low, high = method["ci95"]
    marks = "".join(
        f'<line class="zero" x1="{120 * v:.1f}" x2="{120 * v:.1f}" y1="0" y2="18"><title>{escape(n)}</title></line>'
        for n, v in baselines.items()
        if v is not None
    )
    return Markup(
        f'<svg class="interval up" viewBox="0 0 120 18" aria-hidden="true">{marks}'
        f'<line class="reach" x1="{120 * low:.1f}" x2="{120 * high:.1f}" y1="9" y2="9"/>'
        f'<circle cx="{120 * method["accuracy"]:.1f}" cy="9" r="4"/></svg>'
    )


def bars(name: str, shares: Sequence[float], reference: Sequence[float] | None) -> Markup:
    """Share of the scores in each fifth of the scale, beside the reference's."""
    frame = Frame(0, len(FIFTHS), 0, 1, right=14)
    parts = _grid(frame)
    pairs = [("a", f"{name}: ", shares)] + ([("quiet", "reference: ", reference)] if reference else [])
    for side, (tone, words, values) in enumerate(pairs):
        for i, value in enumerate(values):
            x, width = frame.x(i + 0.08 + 0.42 * side), frame.x(0.4) - LEFT
            parts.append(
                f'<rect class="bar {tone}" x="{x:.1f}" y="{frame.y(value):.1f}" width="{width:.1f}" '
                f'height="{frame.y(0) - frame.y(value):.1f}"><title>{escape(words)}{value:.3f}</title></rect>'
            )
    parts += [_tick(frame.x(i + 0.5), HEIGHT - 8, word, "middle") for i, word in enumerate(FIFTHS)]
    return _svg(f"Scores of {name}", parts)


def curve(name: str, bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Share right against the difference of the scores; the dashed line is guessing."""
    if not bins:
        return Markup("")
    most = max(bin_["difference"] for bin_ in bins) or 1.0
    frame = Frame(0, most, 0, 1, right=14)
    points = [(frame.x(bin_["difference"]), frame.y(bin_["right"])) for bin_ in bins]
    half = frame.y(0.5)
    parts = _grid(frame)
    parts.append(
        f'<line class="grid" stroke-dasharray="4 3" x1="{LEFT}" x2="{WIDTH - 14}" y1="{half:.1f}" y2="{half:.1f}"/>'
    )
    path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    parts.append(f'<path class="line a" d="{path}"/>')
    for (x, y), bin_ in zip(points, bins, strict=True):
        words = f"{bin_['pairs']} pairs, difference {bin_['difference']:.3f}: {percent(bin_['right'])}% right"
        parts.append(f'<circle class="bar a" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{words}</title></circle>')
    parts.append(_tick(LEFT, HEIGHT - 8, "0"))
    parts.append(_tick(WIDTH - 14, HEIGHT - 8, f"{most:.2f} apart", "end"))
    return _svg(f"Calibration of {name}", parts)


def _grid(frame: Frame) -> list[str]:
    parts = []
    for tick in TICKS:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_tick(LEFT - 6, y + 4, f"{100 * tick:g}%", "end"))
    return parts


def _tick(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(title: str, parts: Sequence[str]) -> Markup:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")
