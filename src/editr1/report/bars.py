"""Bars and a radar of benchmark scores, as SVG that takes its colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

from editr1.report.svg import nice_ticks

ROW, NAMES, WIDE = 24, 230, 720  # of the bars
SIZE, REACH, MARGIN = 400, 160, 90  # of the radar: its height, its radius, the room for names at its sides


def bars(title: str, values: Mapping[str, float], tones: Mapping[str, str], best: float) -> Markup:
    """One bar a name, the longest first; names without a tone are hollow (published rows)."""
    ranked = sorted(values.items(), key=lambda pair: -pair[1])
    parts = []
    for i, (name, value) in enumerate(ranked):
        y, width = i * ROW, (WIDE - NAMES - 60) * value / best
        kind = f"bar {tones[name]}" if name in tones else "paper"
        weight = ' class="tick own"' if name in tones else ' class="tick"'
        parts.append(f'<text{weight} x="{NAMES - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="{kind}" x="{NAMES}" y="{y + 4}" width="{max(width, 0.5):.1f}" height="16" rx="2"/>')
        parts.append(f'<text{weight} x="{NAMES + width + 6:.1f}" y="{y + 16}">{value:.2f}</text>')
    height = ROW * len(ranked)
    head = f'<svg class="bars" viewBox="0 0 {WIDE} {height}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")


def radar(
    title: str,
    types: Sequence[str],
    lines: Mapping[str, Sequence[float | None]],
    tones: Mapping[str, str],
    best: float,
) -> Markup:
    """One closed line a result over the types; the rings begin below the least value, so that lines stand apart.

    A line is broken where a type has no value. "" for fewer than three types.
    """
    known = [value for values in lines.values() for value in values if value is not None]
    if len(types) < 3 or not known:
        return Markup("")
    ticks = [tick for tick in nice_ticks(min(known), best) if tick <= best]
    low = max(0.0, ticks[0] - (ticks[1] - ticks[0] if len(ticks) > 1 else best / 4))

    def at(index: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * index / len(types) - math.pi / 2
        radius = REACH * (value - low) / (best - low)
        return SIZE / 2 + radius * math.cos(angle), SIZE / 2 + radius * math.sin(angle)

    parts = [_ring([at(i, tick) for i in range(len(types))]) for tick in ticks]
    for i, name in enumerate(types):
        x, y = at(i, best)
        parts.append(f'<line class="grid" x1="{SIZE / 2}" y1="{SIZE / 2}" x2="{x:.1f}" y2="{y:.1f}"/>')
        parts.append(_label(name, *at(i, best + 0.09 * (best - low))))
    for tick in ticks:
        x, y = at(0, tick)
        parts.append(f'<text class="tick" x="{x + 4:.1f}" y="{y + 4:.1f}">{tick:g}</text>')
    for name, values in lines.items():
        points = [at(i, value) for i, value in enumerate(values) if value is not None]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        shape = "polygon" if len(points) == len(types) else "polyline"
        parts.append(f'<{shape} class="line {tones[name]}" points="{drawn}"><title>{escape(name)}</title></{shape}>')
    frame = f"{-MARGIN} 0 {SIZE + 2 * MARGIN} {SIZE}"
    head = f'<svg class="radar" viewBox="{frame}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _ring(points: Sequence[tuple[float, float]]) -> str:
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon class="grid" fill="none" points="{drawn}"/>'


def _label(name: str, x: float, y: float) -> str:
    side = "middle" if abs(x - SIZE / 2) < 8 else "start" if x > SIZE / 2 else "end"
    return f'<text class="tick" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{side}">{escape(name)}</text>'
