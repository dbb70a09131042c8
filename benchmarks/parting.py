"""Where the judge's score and the oracle's part in the runs of a grid, for the page of results (claims.py).

They part at the step with the best oracle, the untrained editor's (step 0) included, if from there to the last step the
oracle's mean falls and the judge's rises. So a variant whose oracle is at its best at the last step shows no parting,
and one whose judge falls too shows none either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Entry = Mapping[str, Any]
COLOURS = {"oracle": "#2563eb", "judge": "#d97706"}
UNTRAINED = {"gain": 0.0, "ci95": [0.0, 0.0]}
COLUMNS = 4  # of panels
PANEL = 1.7  # height of one, inches


def curve_of(ablation: Entry, variant: str) -> dict[int, Entry]:
    """The gains of oracle and judge by step, from 0, where both were measured."""
    steps = ablation["variants"][variant]["steps"].items()
    measured = {int(at): each for at, each in steps if all(each.get(name) for name in COLOURS)}
    return {0: dict.fromkeys(COLOURS, UNTRAINED), **measured}


def measured_twice(ablation: Entry) -> list[str]:
    """The variants that were measured at several steps."""
    return [name for name in ablation["variants"] if len(curve_of(ablation, name)) > 2]


def best_of(points: Mapping[int, Entry]) -> int:
    """The step with the best oracle; the first of equal ones."""
    return max(sorted(points), key=lambda at: points[at]["oracle"]["gain"])


def change_after(ablation: Entry, variant: str, step: int, measure: str) -> dict[str, Any]:
    """Change of a score from a measured step to the last one; "ci95" is None where the grid was added without it."""
    points = curve_of(ablation, variant)
    last = max(points)
    if step == last:
        return {"change": 0.0, "ci95": [0.0, 0.0]}
    if step == 0:
        return {"change": points[last][measure]["gain"], "ci95": points[last][measure]["ci95"]}
    change = points[last][measure]["gain"] - points[step][measure]["gain"]
    known = ablation["variants"][variant].get("rest", {}).get(str(step), {}).get(measure)
    return dict(known) if known else {"change": change, "ci95": None}


def parting_of(ablation: Entry, variant: str) -> dict[str, Any]:
    """Where a variant's oracle is at its best, what changed from there to its last step, and whether they part there.

    "parts" is "yes" if neither interval holds 0, "not clearly" if one does or is not known, else "no".
    """
    points = curve_of(ablation, variant)
    best = best_of(points)
    oracle, judge = (change_after(ablation, variant, best, measure) for measure in COLOURS)
    parts = "no"
    if oracle["change"] < 0 < judge["change"]:
        clear = oracle["ci95"] and judge["ci95"] and oracle["ci95"][1] < 0 < judge["ci95"][0]
        parts = "yes" if clear else "not clearly"
    return {"best": best, "last": max(points), "oracle": oracle, "judge": judge, "parts": parts}


def alarms_of(ablation: Entry, variant: str) -> str | None:
    """The alarms of a variant's runs and when they first sounded, in words; None if they were not kept."""
    alarms = ablation["variants"][variant].get("alarms", {}).values()
    runs = [each for each in alarms if each is not None]
    if not runs:
        return None
    words = []
    for name in dict.fromkeys(name for run in runs for name in run):
        steps = sorted(run[name] for run in runs if name in run)
        when = f"step {steps[0]}" if steps[0] == steps[-1] else f"steps {steps[0]} to {steps[-1]}"
        words.append(f"{name} at {when} ({len(steps)} of {len(runs)} runs)")
    return "; ".join(words) or "none"


def partings_of(ablation: Entry) -> dict[str, Any] | None:
    """The table of a grid: {"rows", "others", "alarms": whether any are known}; None if it was not measured twice.

    The others are variants whose oracle is at its best at the last step and, where alarms are known, without one.
    """
    names = measured_twice(ablation)
    if not names:
        return None
    alarms = {name: alarms_of(ablation, name) for name in names}
    known = any(words is not None for words in alarms.values())
    rows = [{"name": name, **parting_of(ablation, name), "alarms": alarms[name] or "not kept"} for name in names]
    shown = [row for row in rows if row["best"] < row["last"] or (known and row["alarms"] != "none")]
    return {"rows": shown, "others": len(shown) < len(rows), "alarms": known}


def stopped_early(ablation: Entry) -> dict[str, Any] | None:
    """The first variant at its best measured step, compared with its last one: {"step", "oracle", "judge"}.

    None if it was not measured. The best step is chosen by the figures that it is told by.
    """
    first = next(iter(ablation["variants"]))
    points = curve_of(ablation, first)
    if len(points) < 2:
        return None
    best = best_of({at: each for at, each in points.items() if at})
    since = change_after(ablation, first, best, "oracle")
    interval = since["ci95"] and [-since["ci95"][1], -since["ci95"][0]]
    oracle = {**points[best]["oracle"], "more": -since["change"], "more_ci95": interval}
    return {"step": best, "oracle": oracle, "judge": points[best]["judge"]}


def plot_curves(figure: Figure, ablation: Entry) -> None:
    """A panel per variant: gains of oracle and judge over steps with their intervals.

    A line marks the step where they part (dotted: not clearly), a triangle the first alarm of each run.
    """
    names = measured_twice(ablation)
    rows, columns = -(-len(names) // COLUMNS), min(COLUMNS, len(names))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        _plot_variant(axes, ablation, name)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("gain on held-out items", fontsize=9)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=8, ncols=2, loc="outside upper right")


def _plot_variant(axes: Axes, ablation: Entry, name: str) -> None:
    points = curve_of(ablation, name)
    steps = sorted(points)
    for measure, style in (("oracle", "o-"), ("judge", "o--")):
        entries = [points[step][measure] for step in steps]
        low, high = zip(*(entry["ci95"] for entry in entries), strict=True)
        axes.fill_between(steps, low, high, color=COLOURS[measure], alpha=0.15, lw=0)
        axes.plot(steps, [entry["gain"] for entry in entries], style, ms=3, color=COLOURS[measure], label=measure)
    axes.axhline(0, color="#94a3b8", lw=0.8)
    found = parting_of(ablation, name)
    if found["parts"] != "no":
        axes.axvline(found["best"], color="#dc2626", lw=1, ls="-" if found["parts"] == "yes" else ":")
    runs = [run for run in ablation["variants"][name].get("alarms", {}).values() if run]
    alarms = [min(run.values()) for run in runs]
    axes.plot(alarms, [0.05] * len(alarms), "^", ms=5, color="#dc2626", transform=axes.get_xaxis_transform())
    axes.set_title(name, fontsize=8)


def size_of(ablation: Entry) -> tuple[float, float]:
    """Width and height of the picture of `plot_curves`, inches."""
    return 7.5, 0.6 + PANEL * -(-len(measured_twice(ablation)) // COLUMNS)
