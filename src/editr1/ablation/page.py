"""What a grid has shown, as OUT/ablation.json, OUT/ablation.md and the page OUT/ablation.html."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from editr1.ablation.figures import MEASURES, Curve, read_curves, summarise
from editr1.ablation.grid import Grid
from editr1.ablation.timing import read_seconds
from editr1.files import write_file
from editr1.report.environment import write_page
from editr1.report.svg import Line, interval_bar, line_chart
from editr1.report.text import MISSING

NAME = "ablation"
KINDS = {"seconds": "Equal time", "steps": "Equal steps", "images": "Equal numbers of images"}
TITLES = {
    "oracle": "the oracle's score",
    "done": "how far what was asked is done, by the oracle",
    "preserved": "how far the rest is as it was, by the oracle",
    "judge": "the judge's score",
}
TONES = {"oracle": "a", "judge": "b"}
UNITS = {"seconds": "{:g} s", "steps": "step {}", "images": "{:,} images"}


def write_ablation(grid: Grid, out: Path) -> Path:
    """Write the figures of what the runs have measured so far; returns the page's path."""
    curves = read_curves(grid, out)
    found, missing = summarise(grid, curves, read_seconds(out)), unjudged(grid, curves)
    content = {"grid": grid.model_dump(mode="json"), "variants": found}
    alarms = list(alarm_lines(curves))
    text = markdown(grid, found) + (f"\n{missing}\n" if missing else "")
    text += "".join(["\nAlarms:\n\n", *(f"- {line}\n" for line in alarms)]) if alarms else ""
    write_file(out / f"{NAME}.json", json.dumps(content, indent=1).encode() + b"\n")
    write_file(out / f"{NAME}.md", text.encode())
    return write_page(
        out / f"{NAME}.html",
        "ablation.html.j2",
        grid=grid,
        variants=found,
        missing=missing,
        alarms=alarms,
        tables=list(tables(grid, found)),
        charts=[(name, list(charts(own, curves[grid.first]))) for name, own in curves.items()],
        timed=[(name, each["timed"]) for name, each in found.items() if each["timed"]],
    )


def markdown(grid: Grid, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of all figures, a variant per line."""
    lines = [f"# {grid.title}", "", *([grid.about.strip(), ""] if grid.about else [])]
    lines += ["| variant | settings |", "|---|---|"]
    lines += [f"| {name} | {' '.join(f'`{each}`' for each in found[name]['settings']) or '–'} |" for name in found]
    for table in tables(grid, found):
        heads = [f"{at}: gain [95%] | more than {grid.first} [95%]" for at in table["places"]]
        lines += ["", f"{table['title']}:", "", f"| variant | seeds | {' | '.join(heads)} |"]
        lines.append("|" + "---|" * (2 + 2 * len(heads)))
        for name, seeds, cells in table["rows"]:
            lines.append(f"| {name} | {seeds} | {' | '.join(f'{gain} | {more}' for gain, more, _ in cells)} |")
    return "\n".join(lines) + "\n"


def unjudged(grid: Grid, curves: Mapping[str, Mapping[int, Curve]]) -> str:
    """Which variants have no gain by the judge, and why, in words; empty if all have one."""
    names = [name for name, own in curves.items() if any("judge" not in curve.gains for curve in own.values())]
    if not names:
        return ""
    others = ", nor a comparison of the others with it" if grid.first in names else ""
    cure = "; one that ranks the edits of an item needs edits: 2 or more" if grid.edits == 1 else ""
    return (
        f"No gain by the judge of {', '.join(names)}{others}: the judge scored no edit both before and after "
        f"training{cure}."
    )


def alarm_lines(curves: Mapping[str, Mapping[int, Curve]]) -> Iterator[str]:
    """The alarms that sounded in each run, in words."""
    for variant, own in curves.items():
        for seed, curve in own.items():
            if curve.alarms:
                steps = ", ".join(f"{name} at step {step}" for name, step in curve.alarms.items())
                yield f"{variant}, seed {seed}: {steps}"


def tables(grid: Grid, found: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A table for each measure and each way to compare: {"title", "places", "rows": [(variant, seeds, cells)]}."""
    for measure in MEASURES:
        for kind, words in KINDS.items():
            places = sorted({at for each in found.values() for at in each[kind]})
            entries = {name: [each[kind].get(at, {}).get(measure) for at in places] for name, each in found.items()}
            some = [entry for row in entries.values() for entry in row if entry]
            if some and places:
                reach = max(abs(edge) for entry in some for edge in entry["more_ci95"])
                rows = [
                    (
                        name,
                        max((e["seeds"] for e in row if e), default=0),
                        [_cell(e, name == grid.first, reach) for e in row],
                    )
                    for name, row in entries.items()
                ]
                units = [UNITS[kind].format(at) for at in places]
                yield {"title": f"{words}: {TITLES[measure]}", "places": units, "rows": rows}


def charts(own: Mapping[int, Curve], first: Mapping[int, Curve]) -> Iterator[Markup]:
    """Gains over steps, the mean of all seeds: oracle and judge, and the oracle (or judge) of the first variant."""
    means = {name: _mean(own, name) for name in TONES if all(name in curve.gains for curve in own.values())}
    if mine := {name: mean for name, mean in means.items() if mean}:
        leading = next(iter(mine))
        theirs = _mean(first, leading) if all(leading in curve.gains for curve in first.values()) else {}
        steps = sorted({*mine[leading], *theirs})
        lines = [Line(name, [values.get(step) for step in steps], TONES[name]) for name, values in mine.items()]
        yield line_chart("Gain over steps", steps, [Line("first", [theirs.get(s) for s in steps], "quiet"), *lines])


def _mean(curves: Mapping[int, Curve], measure: str) -> dict[int, float]:
    """Mean gain by step, of the steps that all seeds have; none of a step at which no edit has a gain."""
    steps = set.intersection(*(set(curve.steps) for curve in curves.values()))
    rows = {step: [curve.gains[measure][curve.steps.index(step)] for curve in curves.values()] for step in steps}
    return {step: float(np.nanmean(rows[step])) for step in sorted(steps) if not np.isnan(rows[step]).all()}


def _cell(entry: Mapping[str, Any] | None, is_first: bool, reach: float) -> tuple[str, str, Markup]:
    """Gain, difference to the first variant, and that difference drawn against zero."""
    if entry is None:
        return MISSING, MISSING, Markup("")
    gain = _words(entry["gain"], entry["ci95"])
    if is_first:
        return gain, MISSING, Markup("")
    return gain, _words(entry["more"], entry["more_ci95"]), interval_bar(entry["more"], entry["more_ci95"], reach)


def _words(value: float, interval: list[float]) -> str:
    """A change with its interval, three decimals."""
    low, high = interval
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
