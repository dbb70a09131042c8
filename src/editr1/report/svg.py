"""Small SVG charts that take their colours from the page's style sheet, so that they follow its light or dark theme.

A colour is a `tone`: a CSS class of the page ("a", "b", "c" or "quiet").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 340, 190
LEFT, TOP, BOTTOM = 44, 10, 26
MOST_POINTS = 120  # longer runs are averaged over stretches of equal length
LABEL_GAP = 14  # least distance between two labels at line ends
LEAST = 1e-30  # reach of a scale: less is none
ROW, NAMES, WIDE = 24, 230, 720  # ranked bars: height of a row, room for the names, whole width
SIZE, REACH, MARGIN = 400, 160, 90  # radar: height, radius, room for the names at its sides
STRIP = 120, 18  # interval in a table's cell: width and height

Values = Sequence[float | None]


def element(name: str, kind: str | None = None, content: str | None = None, **attributes: str | float) -> str:
    """One SVG element of CSS class `kind`; fractions get one decimal, "_" in an attribute's name is "-"."""
    pairs = {"class": kind, **attributes} if kind else attributes
    words = " ".join(f'{key.replace("_", "-")}="{_attribute(value)}"' for key, value in pairs.items())
    return f"<{name} {words}/>" if content is None else f"<{name} {words}>{content}</{name}>"


def line(kind: str, x1: float, x2: float, y1: float, y2: float, content: str | None = None) -> str:
    """A straight line."""
    return element("line", kind, content, x1=x1, x2=x2, y1=y1, y2=y2)


def rect(kind: str, x: float, y: float, width: float, height: float, content: str | None = None) -> str:
    """A filled rectangle."""
    return element("rect", kind, content, x=x, y=y, width=width, height=height)


def text(words: str, x: float, y: float, anchor: str | None = None, kind: str = "tick") -> str:
    """A line of text; `anchor` is the part of it that is at `x`: "start", "middle" or "end"."""
    side = {"text_anchor": anchor} if anchor else {}
    return element("text", kind, escape(words), x=x, y=y, **side)


def tip(words: str) -> str:
    """What a browser shows while the pointer is over an element: the element's content."""
    return f"<title>{escape(words)}</title>"


def picture(kind: str, view: str, parts: Sequence[str], title: str | None = None) -> Markup:
    """The parts as one picture, with a title for screen readers; without one, they skip it."""
    said = {"aria_hidden": "true"} if title is None else {"role": "img", "aria_label": title}
    return Markup(element("svg", kind, "".join(parts), viewBox=view, **said))


@dataclass(frozen=True)
class Line:
    """One curve: a value per step, None if the step has none."""

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
    right: int = 14

    def x(self, value: float) -> float:
        """Data to SVG, across."""
        return LEFT + (value - self.x0) / ((self.x1 - self.x0) or 1) * (WIDTH - LEFT - self.right)

    def y(self, value: float) -> float:
        """Data to SVG, down."""
        return HEIGHT - BOTTOM - (value - self.y0) / ((self.y1 - self.y0) or 1) * (HEIGHT - TOP - BOTTOM)

    def level(self, value: float) -> str:
        """A horizontal grid line."""
        return line("grid", LEFT, WIDTH - self.right, self.y(value), self.y(value))


def chart(title: str, parts: Sequence[str]) -> Markup:
    """The parts in a picture of the size that `Frame` fills."""
    return picture("chart", f"0 0 {WIDTH} {HEIGHT}", parts, title)


def line_chart(
    title: str,
    steps: Sequence[int],
    lines: Sequence[Line],
    span: tuple[float, float] | None = None,
    named: bool = True,
) -> Markup:
    """Curves over steps: values faint, the running mean strong.

    `span` fixes the vertical range. Several curves are `named` at their ends, unless the page has a legend.
    """
    steps, lines = _thin(steps, lines)
    values = [value for each in lines for value in each.values if value is not None]
    if not values:
        return Markup("")
    ticks = nice_ticks(*(span or (min(values), max(values))))
    named = named and len(lines) > 1
    frame = Frame(steps[0], steps[-1], ticks[0], ticks[-1], right=84 if named else 14)
    parts = _axes(frame, ticks, (steps[0], steps[-1]))
    for each in lines:
        ended = next((i for i, value in enumerate(reversed(each.values)) if value is not None), 0)
        smooth = running_mean(each.values, max(1, len(steps) // 10))[: len(steps) - ended] + [None] * ended
        parts.append(_path(frame, steps, each.values, f"line faint {each.tone}"))
        parts.append(_path(frame, steps, smooth, f"line {each.tone}", tip(f"{each.label}: {_ends(each.values)}")))
    if named:
        parts += _labels(frame, lines)
    return chart(title, parts)


def interval_chart(
    title: str,
    steps: Sequence[int],
    means: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    certain: bool = True,
) -> Markup:
    """Means at some steps as dots on a line, each with a bar from the low to the high end of its interval.

    Intervals that are not `certain`, as of a few items, are dashed.
    """
    ticks = nice_ticks(min(low for low, _ in intervals), max(high for _, high in intervals))
    frame = Frame(steps[0], steps[-1], ticks[0], ticks[-1])
    parts = [*_axes(frame, ticks, (steps[0], steps[-1])), _path(frame, steps, means, "line b")]
    for step, mean, (low, high) in zip(steps, means, intervals, strict=True):
        x, words = frame.x(step), tip(f"step {step}: {mean:.3f} [{low:.3f}, {high:.3f}]")
        parts.append(line("line b" if certain else "line b few", x, x, frame.y(low), frame.y(high)))
        parts.append(element("circle", "bar b", words, cx=x, cy=frame.y(mean), r=3.5))
    return chart(title, parts)


def stack_chart(title: str, steps: Sequence[int], stacks: Mapping[str, Values], tones: Mapping[str, str]) -> Markup:
    """Stacked bars over steps, the first key at the bottom."""
    steps, lines = _thin(steps, [Line(key, values) for key, values in stacks.items()])
    columns = [[each.values[i] or 0.0 for each in lines] for i in range(len(steps))]
    ticks = nice_ticks(0, max(map(sum, columns)))
    pitch = (WIDTH - LEFT - 14) / len(steps)
    frame = Frame(steps[0] - 0.5, steps[-1] + 0.5, 0, ticks[-1])
    parts = _axes(frame, ticks, (steps[0], steps[-1]))
    for i, (step, column) in enumerate(zip(steps, columns, strict=True)):
        base = 0.0
        for each, value in zip(lines, column, strict=True):
            top, bottom = frame.y(base + value), frame.y(base)
            words = tip(f"step {step}: {each.label} {value:g}")
            x, width = LEFT + i * pitch, max(pitch * 0.8, 0.6)
            parts.append(rect(f"bar {tones[each.label]}", x, top, width, bottom - top, words))
            base += value
    return chart(title, parts)


def interval_bar(delta: float, interval: Sequence[float], reach: float, certain: bool = True) -> Markup:
    """A change with its interval against zero; `reach` is the largest absolute value in the column.

    An interval that is not `certain`, as of a few items, is dashed and takes no side.
    """
    (low, high), (width, height) = interval, STRIP

    def x(value: float) -> float:
        return width / 2 + value / (reach or 1) * (width / 2 - 4)

    tone = "few" if not certain else "up" if low > 0 else "down" if high < 0 else "quiet"
    parts = [
        line("zero", width / 2, width / 2, 0, height),
        line("reach", x(low), x(high), height / 2, height / 2),
        element("circle", cx=x(delta), cy=height / 2, r=4),
    ]
    return picture(f"interval {tone}", f"0 0 {width} {height}", parts)


def share_bar(share: float, interval: Sequence[float], marks: Mapping[str, float]) -> Markup:
    """A share with its interval on [0, 1]; `marks` are thin strokes with names."""
    (low, high), (width, height) = interval, STRIP
    parts = [line("zero", width * mark, width * mark, 0, height, tip(name)) for name, mark in marks.items()]
    parts.append(line("reach", width * low, width * high, height // 2, height // 2))
    parts.append(element("circle", cx=width * share, cy=height // 2, r=4))
    return picture("interval up", f"0 0 {width} {height}", parts)


def ranked_bars(title: str, values: Mapping[str, float], tones: Mapping[str, str], best: float) -> Markup:
    """A bar per name, the longest first; names without a tone are hollow (published rows)."""
    parts = []
    for i, (name, value) in enumerate(sorted(values.items(), key=lambda pair: -pair[1])):
        y, width = i * ROW, (WIDE - NAMES - 60) * value / best
        kind, weight = (f"bar {tones[name]}", "tick own") if name in tones else ("paper", "tick")
        parts.append(text(name, NAMES - 8, y + 16, "end", weight))
        parts.append(element("rect", kind, x=NAMES, y=y + 4, width=max(width, 0.5), height=16, rx=2))
        parts.append(text(f"{value:.2f}", NAMES + width + 6, y + 16, kind=weight))
    return picture("bars", f"0 0 {WIDE} {ROW * len(values)}", parts, title)


def radar(
    title: str,
    types: Sequence[str],
    lines: Mapping[str, Sequence[float | None]],
    tones: Mapping[str, str],
    best: float,
) -> Markup:
    """A closed line per result over the types; the rings begin below the least value, so that lines are well apart.

    A line is open if a type has no value. Fewer than three types give "".
    """
    values = [value for each in lines.values() for value in each if value is not None]
    if len(types) < 3 or not values:
        return Markup("")
    ticks = [tick for tick in nice_ticks(min(values), best) if tick <= best] or [best]
    low = max(0.0, ticks[0] - (ticks[1] - ticks[0] if len(ticks) > 1 else best / 4))

    def at(index: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * index / len(types) - math.pi / 2
        radius = REACH * (value - low) / (best - low)
        return SIZE / 2 + radius * math.cos(angle), SIZE / 2 + radius * math.sin(angle)

    rings = [_corners([at(i, tick) for i in range(len(types))]) for tick in ticks]
    parts = [element("polygon", "grid", fill="none", points=ring) for ring in rings]
    for i, name in enumerate(types):
        x, y = at(i, best)
        parts.append(element("line", "grid", x1=SIZE / 2, y1=SIZE / 2, x2=x, y2=y))
        parts.append(_type_name(name, *at(i, best + 0.09 * (best - low))))
    parts += [text(f"{tick:g}", at(0, tick)[0] + 4, at(0, tick)[1] + 4) for tick in ticks]
    for name, scores in lines.items():
        points = [at(i, value) for i, value in enumerate(scores) if value is not None]
        shape = "polygon" if len(points) == len(types) else "polyline"
        parts.append(element(shape, f"line {tones[name]}", tip(name), points=_corners(points)))
    return picture("radar", f"{-MARGIN} 0 {SIZE + 2 * MARGIN} {SIZE}", parts, title)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers, evenly spaced by 1, 2 or 5 times a power of ten, that cover [low, high]."""
    reach = (high - low) or abs(high)
    reach = reach if reach > LEAST else 1.0
    power = 10.0 ** math.floor(math.log10(reach / count))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= reach / count * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


def running_mean(values: Values, window: int) -> list[float | None]:
    """Mean over the last `window` steps, without missing values; None before the first value."""
    means: list[float | None] = []
    for i in range(len(values)):
        recent = [v for v in values[max(0, i + 1 - window) : i + 1] if v is not None]
        means.append(sum(recent) / len(recent) if recent else None)
    return means


def _attribute(value: str | float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))


def _thin(steps: Sequence[int], lines: Sequence[Line]) -> tuple[list[int], list[Line]]:
    """At most `MOST_POINTS` points: means over runs of steps, placed at the last step of each."""
    size = max(1, math.ceil(len(steps) / MOST_POINTS))
    starts = range(0, len(steps), size)
    ends = [steps[min(start + size, len(steps)) - 1] for start in starts]
    thin = [[running_mean(each.values[s : s + size], size)[-1] for s in starts] for each in lines]
    return ends, [Line(each.label, values, each.tone) for each, values in zip(lines, thin, strict=True)]


def _axes(frame: Frame, ticks: Sequence[float], steps: tuple[int, int]) -> list[str]:
    """Horizontal grid lines with their values; the first and the last step."""
    parts = []
    for tick in ticks:
        parts += [frame.level(tick), text(f"{tick:g}", LEFT - 6, frame.y(tick) + 4, "end")]
    parts.append(text(f"step {steps[0]}", LEFT, HEIGHT - 8))
    if steps[1] != steps[0]:
        parts.append(text(str(steps[1]), WIDTH - frame.right, HEIGHT - 8, "end"))
    return parts


def _path(frame: Frame, steps: Sequence[int], values: Values, kind: str, content: str = "") -> str:
    """A curve, broken where a value is missing; a single point is a dot."""
    points, pen = [], "M"
    for step, value in zip(steps, values, strict=True):
        if value is None:
            pen = "M"
            continue
        points.append(f"{pen}{frame.x(step):.1f} {frame.y(value):.1f}")
        pen = "L"
    if len(points) == 1:
        points.append("h0.1")
    return element("path", kind, content, d=" ".join(points))


def _labels(frame: Frame, lines: Sequence[Line]) -> list[str]:
    """The name of each curve at the height of its end; names that would touch are moved apart."""
    ends = [(running_mean(each.values, len(each.values) // 10 or 1)[-1], each) for each in lines]
    heights = sorted(((frame.y(end), each) for end, each in ends if end is not None), key=lambda pair: pair[0])
    parts, free = [], 0.0
    for height, each in heights:
        y = max(height + 4, free)
        free = y + LABEL_GAP
        parts.append(text(each.label, WIDTH - frame.right + 6, y, kind=f"label {each.tone}"))
    return parts


def _ends(values: Values) -> str:
    numbers = [value for value in values if value is not None]
    return f"{numbers[0]:.4g} at first, {numbers[-1]:.4g} at last" if numbers else "no value"


def _corners(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _type_name(name: str, x: float, y: float) -> str:
    side = "middle" if abs(x - SIZE / 2) < 8 else "start" if x > SIZE / 2 else "end"
    return text(name, x, y + 4, side)
