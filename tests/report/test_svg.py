"""Charts read back from their SVG: coordinates must stand for the values."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.report.svg import Line, interval_bar, interval_chart, line_chart, nice_ticks, running_mean, stack_chart

thousandths = st.integers(-100_000, 100_000)


def points(path: ET.Element) -> list[tuple[float, float]]:
    """The coordinates of a path of M and L commands."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.attrib["d"])]


def paths(svg: str, tone: str) -> list[ET.Element]:
    """The strong curves of a tone."""
    return [each for each in ET.fromstring(svg).iter("path") if each.attrib["class"] == f"line {tone}"]


def values_of(svg: str, ys: list[float]) -> list[float]:
    """Heights back to values, by the chart's own tick labels."""
    root = ET.fromstring(svg)
    ticks = [(float(t.attrib["y"]) - 4, float(t.text or "")) for t in root.iter("text") if t.attrib.get("x") == "38"]
    (y0, v0), (y1, v1) = ticks[0], ticks[-1]
    return [v0 + (y - y0) / (y1 - y0) * (v1 - v0) for y in ys]


@given(thousandths, thousandths, st.integers(-12, 6))
def test_ticks_cover_the_range_evenly_with_few_round_numbers(a: int, b: int, power: int) -> None:
    low, high = min(a, b) * 10.0**power, max(a, b) * 10.0**power
    ticks = nice_ticks(low, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step and high - 1e-6 * step <= ticks[-1]
    assert np.diff(ticks) == pytest.approx(step, rel=1e-6)
    assert 2 <= len(ticks) <= 7
    assert float(f"{step:.0e}") == pytest.approx(step, rel=1e-6)


def test_ticks_of_the_unit_range() -> None:
    assert nice_ticks(0, 1) == [0, 0.5, 1]


def test_running_mean_equals_numpys_over_full_windows_and_skips_missing_values() -> None:
    values = np.random.default_rng(0).random(30)
    ours = running_mean(list(values), 5)
    assert ours[4:] == pytest.approx(np.convolve(values, np.ones(5) / 5, "valid"))
    assert ours[0] == values[0]
    assert running_mean([None, 2.0, None, 4.0], 3) == [None, 2.0, 2.0, 3.0]


def test_curve_stands_at_the_values() -> None:
    values = [0.25, 0.5, 1.0, 0.0, 0.75]
    svg = line_chart("t", [1, 2, 3, 4, 5], [Line("a", values)])
    (path,) = paths(svg, "a")
    xs, ys = zip(*points(path), strict=True)
    assert values_of(svg, list(ys)) == pytest.approx(values, abs=0.002)
    assert np.diff(xs) == pytest.approx(xs[1] - xs[0], abs=0.11)


def test_curve_is_broken_where_a_value_is_missing() -> None:
    svg = line_chart("t", [1, 2, 3, 4], [Line("a", [0.1, 0.2, None, 0.4])])
    faint = next(each for each in ET.fromstring(svg).iter("path") if "faint" in each.attrib["class"])
    assert faint.attrib["d"].count("M") == 2
    assert len(points(faint)) == 3


def test_no_value_at_all_makes_no_chart() -> None:
    assert line_chart("t", [1, 2], [Line("a", [None, None])]) == ""


def test_long_runs_are_averaged_to_few_points_without_moving_the_mean() -> None:
    values = np.random.default_rng(1).random(6000)
    svg = line_chart("t", list(range(1, 6001)), [Line("a", list(values))], (0, 1))
    faint = next(each for each in ET.fromstring(svg).iter("path") if "faint" in each.attrib["class"])
    heights = [y for _, y in points(faint)]
    assert len(heights) == 120
    assert np.mean(values_of(svg, heights)) == pytest.approx(values.mean(), abs=0.002)


def test_labels_at_line_ends_never_touch() -> None:
    lines = [Line(f"l{i}", [0.5, 0.5 + i / 1000]) for i in range(4)]
    root = ET.fromstring(line_chart("t", [1, 2], lines, (0, 1)))
    heights = [float(t.attrib["y"]) for t in root.iter("text") if t.attrib["class"].startswith("label")]
    assert len(heights) == 4
    assert min(np.diff(heights)) >= 14


def test_titles_and_labels_are_escaped() -> None:
    svg = line_chart('a "<b>"', [1, 2], [Line("x<y", [0, 1]), Line("&", [1, 0])])
    root = ET.fromstring(svg)
    assert root.attrib["aria-label"] == 'a "<b>"'
    assert {t.text for t in root.iter("text")} >= {"x<y", "&"}


def test_stacked_bars_are_as_high_as_their_counts_and_stand_on_each_other() -> None:
    stacks = {"kept": [6, 8], "agree": [2, 0]}
    root = ET.fromstring(stack_chart("g", [1, 2], stacks, {"kept": "a", "agree": "b"}))
    bars = [(r.attrib["class"], float(r.attrib["y"]), float(r.attrib["height"])) for r in root.iter("rect")]
    kept, agree = bars[0], bars[1]
    assert kept[2] == pytest.approx(3 * agree[2], abs=0.2)
    assert agree[1] + agree[2] == pytest.approx(kept[1], abs=0.11)
    assert bars[2][2] == pytest.approx(8 / 6 * kept[2], abs=0.2)


@pytest.mark.parametrize(
    ("low", "high", "tone"), [(0.1, 0.3, "up"), (-0.3, -0.1, "down"), (-0.1, 0.3, "quiet"), (0.0, 0.2, "quiet")]
)
def test_interval_is_coloured_by_whether_it_excludes_zero(low: float, high: float, tone: str) -> None:
    root = ET.fromstring(interval_bar((low + high) / 2, [low, high], 0.5))
    assert root.attrib["class"] == f"interval {tone}"
    ends = next(line for line in root.iter("line") if line.attrib["class"] == "reach")
    shown = [(float(ends.attrib[x]) - 60) / 56 * 0.5 for x in ("x1", "x2")]
    assert shown == pytest.approx([low, high], abs=0.001)


def test_interval_of_few_items_takes_no_side() -> None:
    certain, few = (ET.fromstring(interval_bar(0.2, [0.1, 0.3], 0.5, it)) for it in (True, False))
    assert (certain.attrib["class"], few.attrib["class"]) == ("interval up", "interval few")


def test_points_with_intervals_are_at_their_heights() -> None:
    means, intervals = [0.25, 0.5, 1.0], [(0.25, 0.25), (0.25, 0.75), (0.75, 1.0)]
    svg = interval_chart("t", [0, 5, 20], means, intervals)
    root = ET.fromstring(svg)
    dots = [float(dot.attrib["cy"]) for dot in root.iter("circle")]
    bars = [line for line in root.iter("line") if line.attrib["class"] == "line b"]
    assert values_of(svg, dots) == pytest.approx(means, abs=0.002)
    ends = [values_of(svg, [float(bar.attrib[end]) for end in ("y1", "y2")]) for bar in bars]
    assert ends == [pytest.approx(interval, abs=0.002) for interval in intervals]


def test_intervals_over_the_steps_are_dashed_if_they_are_of_few_items() -> None:
    for certain, kind in ((True, "line b"), (False, "line b few")):
        root = ET.fromstring(interval_chart("t", [0, 1], [0.2, 0.4], [(0.2, 0.2), (0.1, 0.6)], certain))
        assert [line.attrib["class"] for line in root.iter("line") if "grid" not in line.attrib["class"]] == [kind] * 2
