"""Small SVG charts that take their colours from the page's style sheet, so that they follow its light or dark theme.

A line's colour is its `tone`: a CSS class of the page ("a", "b", "c" or "quiet"); its label stands at its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 340, 190
LEFT, TOP, BOTTOM = 44, 10, 26
MOST_POINTS = 120  # more steps than this are averaged in runs of equal length
LABEL_GAP = 14  # least distance between two labels at line ends

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One curve: a value a step, None where there is none."""

    label: str
    values: Values
    tone: str = "a"


@dataclass(frozen=True)
class Frame:
    """The plotting area and the data range it shows."""

    x0: float
    x1: float
    y0: float
    y1: float
    right: float

    def x(self, value: float) -> float:
        """Data to SVG, across."""
        return LEFT + (value - self.x0) / ((self.x1 - self.x0) or 1) * (WIDTH - LEFT - self.right)

    def y(self, value: float) -> float:
        """Data to SVG, down."""
        return HEIGHT - BOTTOM - (value - self.y0) / ((self.y1 - self.y0) or 1) * (HEIGHT - TOP - BOTTOM)


def line_chart(
    title: str, steps: Sequence[int], lines: Sequence[Line], span: tuple[float, float] | None = None
) -> Markup:
    """Curves over steps: each value faint, the running mean strong. `span` fixes the vertical range."""
    steps, lines = _thin(steps, lines)
    shown = [value for line in lines for value in line.values if value is not None]
    if not shown:
        return Markup("")
    ticks = nice_ticks(*(span or (min(shown), max(shown))))
    frame = Frame(steps[0], steps[-1], ticks[0], ticks[-1], right=84 if len(lines) > 1 else 14)
    parts = _axes(frame, ticks)
    for line in lines:
        smooth = running_mean(line.values, max(1, len(steps) // 10))
        parts.append(_path(frame, steps, line.values, f"line faint {line.tone}"))
        parts.append(_path(frame, steps, smooth, f"line {line.tone}", f"{line.label}: {_ends(line.values)}"))
    if len(lines) > 1:
        parts += _labels(frame, lines)
    return _svg(title, parts)


def stack_chart(title: str, steps: Sequence[int], stacks: Mapping[str, Values], tones: Mapping[str, str]) -> Markup:
    """Stacked bars over steps, the first key at the bottom."""
    steps, lines = _thin(steps, [Line(key, values) for key, values in stacks.items()])
    columns = [[line.values[i] or 0.0 for line in lines] for i in range(len(steps))]
    ticks = nice_ticks(0, max(map(sum, columns)))
    pitch = (WIDTH - LEFT - 14) / len(steps)
    frame = Frame(steps[0] - 0.5, steps[-1] + 0.5, 0, ticks[-1], right=14)
    parts = _axes(frame, ticks, labels=(steps[0], steps[-1]))
    for i, (step, column) in enumerate(zip(steps, columns, strict=True)):
        base = 0.0
        for line, value in zip(lines, column, strict=True):
            top, bottom = frame.y(base + value), frame.y(base)
            parts.append(
                f'<rect class="bar {tones[line.label]}" x="{LEFT + i * pitch:.1f}" y="{top:.1f}" '
                f'width="{max(pitch * 0.8, 0.6):.1f}" height="{bottom - top:.1f}">'
                f"<title>step {step}: {escape(line.label)} {value:g}</title></rect>"
            )
            base += value
    return _svg(title, parts)


def interval_bar(delta: float, interval: Sequence[float], reach: float) -> Markup:
    """A change with its interval against zero, `reach` being the largest absolute value shown in the column."""
    (low, high), width, height = interval, 120, 18

    def x(value: float) -> float:
        return width / 2 + value / (reach or 1) * (width / 2 - 4)

    tone = "up" if low > 0 else "down" if high < 0 else "quiet"
    return Markup(
        f'<svg class="interval {tone}" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<line class="zero" x1="{width / 2}" x2="{width / 2}" y1="0" y2="{height}"/>'
        f'<line class="reach" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{height / 2}" y2="{height / 2}"/>'
        f'<circle cx="{x(delta):.1f}" cy="{height / 2}" r="4"/></svg>'
    )


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers, evenly spaced by 1, 2 or 5 times a power of ten, that cover [low, high]."""
    reach = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(reach / wanted))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= reach / wanted * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def running_mean(values: Values, window: int) -> list[float | None]:
    """Mean of the last `window` values known at each step; None before the first."""
    means: list[float | None] = []
    for i in range(len(values)):
        known = [v for v in values[max(0, i + 1 - window) : i + 1] if v is not None]
        means.append(sum(known) / len(known) if known else None)
    return means


def _thin(steps: Sequence[int], lines: Sequence[Line]) -> tuple[list[int], list[Line]]:
    """At most `MOST_POINTS` points: means over runs of steps, placed at the last step of each."""
    size = max(1, math.ceil(len(steps) / MOST_POINTS))
    starts = range(0, len(steps), size)
    ends = [steps[min(start + size, len(steps)) - 1] for start in starts]
    thin = [[running_mean(line.values[s : s + size], size)[-1] for s in starts] for line in lines]
    return ends, [Line(line.label, values, line.tone) for line, values in zip(lines, thin, strict=True)]


def _axes(frame: Frame, ticks: Sequence[float], labels: tuple[float, float] | None = None) -> list[str]:
    """Horizontal grid lines with their values; the first and the last step."""
    right = WIDTH - frame.right
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    first, last = labels or (frame.x0, frame.x1)
    parts.append(f'<text class="tick" x="{LEFT}" y="{HEIGHT - 8}">step {first:g}</text>')
    if last != first:
        parts.append(f'<text class="tick" x="{right}" y="{HEIGHT - 8}" text-anchor="end">{last:g}</text>')
    return parts


def _path(frame: Frame, steps: Sequence[int], values: Values, classes: str, tip: str = "") -> str:
    """A curve, broken where a value is missing; a lone point is drawn as a dot."""
    points, pen = [], "M"
    for step, value in zip(steps, values, strict=True):
        if value is None:
            pen = "M"
            continue
        points.append(f"{pen}{frame.x(step):.1f} {frame.y(value):.1f}")
        pen = "L"
    if len(points) == 1:
        points.append("h0.1")
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<path class="{classes}" d="{" ".join(points)}">{title}</path>'


def _labels(frame: Frame, lines: Sequence[Line]) -> list[str]:
    """The name of each curve at the height where it ends, moved apart where two would touch."""
    ends = [(running_mean(line.values, len(line.values) // 10 or 1)[-1], line) for line in lines]
    placed = sorted(((frame.y(end), line) for end, line in ends if end is not None), key=lambda pair: pair[0])
    parts, free = [], 0.0
    for height, line in placed:
        y = max(height + 4, free)
        free = y + LABEL_GAP
        parts.append(
            f'<text class="label {line.tone}" x="{WIDTH - frame.right + 6}" y="{y:.1f}">{escape(line.label)}</text>'
        )
    return parts


def _ends(values: Values) -> str:
    known = [value for value in values if value is not None]
    return f"{known[0]:.4g} at first, {known[-1]:.4g} at last" if known else "no value"


def _svg(title: str, parts: Sequence[str]) -> Markup:
    """The parts in one picture with a name for screen readers."""
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")
