"""benchmarks/RESULTS.md and results.svg from results.json: the bars first, held or missed, then all else.

Why a bar is missed is for people to say: `why.yaml`, if it is there, maps names of bars to a sentence.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from judge_client import LEAST
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import HERE

from editr1.files import write_file

Results = Mapping[str, Any]
TEMPLATE, PAGE, PLOT, WHY = "RESULTS.md.j2", "RESULTS.md", "results.svg", HERE / "why.yaml"
COLOURS = {"ours": "#2563eb", "recipe": "#d97706"}


@dataclass(frozen=True)
class Bar:
    """What a figure must be.

    Attributes:
        name: In words.
        part: Part of the benchmark that measures it.
        keys: Its place in the results.
        limit: Largest value that holds it; the smallest one if `least`.
        least: Whether more is better.
    """

    name: str
    part: str
    keys: tuple[str | int, ...]
    limit: float
    least: bool = False

    def is_measured(self, results: Results) -> bool:
        """Whether its part was measured, even if that gave no figure."""
        return self.keys[0] in results

    def value(self, results: Results) -> float | None:
        """The figure; None if there is none."""
        found: Any = results.get(str(self.keys[0]))
        for key in self.keys[1:]:
            found = None if found is None else found[key]
        return None if found is None else float(found)

    def holds(self, results: Results) -> bool:
        """Whether the figure is there and within the limit."""
        value = self.value(results)
        return value is not None and (value >= self.limit if self.least else value <= self.limit)

    @property
    def bound(self) -> str:
        """The limit in words."""
        return f"at {'least' if self.least else 'most'} {self.limit:g}"


BARS = (
    Bar("step / the recipe's step, no group dropped", "identical", ("identical_ratio", "none_dropped"), 0.90),
    Bar("step / the recipe's step, half of the groups dropped", "identical", ("identical_ratio", "half_dropped"), 0.65),
    *(
        Bar(
            f"the same at the published five noise levels per edit, {groups} dropped",
            "identical",
            ("identical_ratio_five_levels", f"{groups}_dropped"),
            limit,
        )
        for groups, limit in (("none", 0.90), ("half", 0.65))
    ),
    Bar("floor / step", "floor", ("floor_ratio",), 0.90, least=True),
    Bar("growth of memory over 200 steps, MB per step", "memory", ("rss_slope_mb_per_step",), 0.2),
    Bar("first step on 1,000,000 lines later than on 1,000, seconds", "startup", ("startup_delta_s",), 5.0),
    Bar("time to the recipe's gain / its time", "gain", ("time_to_gain_ratio", "ratio"), 0.5),
    Bar("the same, upper end of the 95% interval", "gain", ("time_to_gain_ratio", "ci95", 1), 1.0),
    *(
        Bar(
            f"judge server's busy share / under a bare load, {size}",
            "judge_client",
            ("judge_client", size, "ratio"),
            LEAST,
            True,
        )
        for size in ("64x64", "512x512")
    ),
)


def missed(results: Results, parts: Iterable[str]) -> list[str]:
    """The bars of these parts that were measured and are not held, in words."""
    wanted = {*parts}
    broken = [bar for bar in BARS if bar.part in wanted and bar.is_measured(results) and not bar.holds(results)]
    return [f"{bar.name}: {number(bar.value(results))}, {bar.bound} is asked for" for bar in broken]


def number(value: float | None) -> str:
    """A figure with three digits that count; a dash if there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write(results: Results, folder: Path = HERE) -> None:
    """Write the page and the plot."""
    why = yaml.safe_load(WHY.read_text(encoding="utf-8")) if WHY.exists() else {}
    write_file(folder / PAGE, page(results, why).encode())
    write_file(folder / PLOT, plot(results))


def page(results: Results, why: Mapping[str, str]) -> str:
    """RESULTS.md; what is not measured is left out."""
    loader = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    loader.filters["number"] = number
    return loader.get_template(TEMPLATE).render(results={"made": {}, **results}, bars=BARS, why=why)


def plot(results: Results) -> bytes:
    """results.svg: a panel per part that is measured; the same bytes for the same results."""
    panels = {
        "identical_seconds": plot_identical,
        "floor_seconds": plot_floor,
        "rss_mb": plot_memory,
        "gain_by_step": plot_gain,
    }
    shown = [act for key, act in panels.items() if key in results]
    with mpl.rc_context({"svg.hashsalt": "editr1", "font.size": 9}):
        figure = Figure(figsize=(11, 3.4 * max(1, (len(shown) + 1) // 2)), layout="constrained")
        for place, act in enumerate(shown, start=1):
            act(figure.add_subplot((len(shown) + 1) // 2, min(2, len(shown)), place), results)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def plot_identical(axes: Axes, results: Results) -> None:
    """Seconds of a step of both ways."""
    names = [*results["identical_seconds"]]
    for shift, way in ((-0.2, "ours"), (0.2, "recipe")):
        heights = [results["identical_seconds"][name][way] for name in names]
        axes.bar([place + shift for place in range(len(names))], heights, 0.4, label=way, color=COLOURS[way])
    axes.set_xticks(range(len(names)), [f"{name.replace('_', ' ')}" for name in names])
    axes.set(title="The same step, both ways", ylabel="seconds")
    axes.legend()


def plot_floor(axes: Axes, results: Results) -> None:
    """What a step cannot do without, piled up beside the step."""
    seconds, bottom = dict(results["floor_seconds"]), 0.0
    axes.barh(1, seconds.pop("step"), color="#94a3b8")
    for name, height in seconds.items():
        axes.barh(0, height, left=bottom, label=name)
        bottom += height
    axes.set_yticks([0, 1], ["floor", "step"])
    axes.set(title="A step and its floor", xlabel="seconds", ylim=(-0.5, 2.8))
    axes.legend(fontsize=7, ncols=3, loc="upper left")


def plot_memory(axes: Axes, results: Results) -> None:
    """Resident memory by step."""
    axes.plot(range(1, len(results["rss_mb"]) + 1), results["rss_mb"], color=COLOURS["ours"])
    axes.set(title="Resident memory", xlabel="step", ylabel="MB", ylim=(0, 1.1 * max(results["rss_mb"])))


def plot_gain(axes: Axes, results: Results) -> None:
    """Held-out gain over training time, a line per way and seed."""
    seconds = results.get("time_to_gain_ratio", {}).get("seconds_per_step", {})
    for way, runs in results["gain_by_step"].items():
        rate = seconds[way]["median"] if seconds else 1.0
        for place, curve in enumerate(runs.values()):
            times = [0.0, *(int(at) * rate for at in curve)]
            gains = [0.0, *(each["delta"] for each in curve.values())]
            axes.plot(times, gains, "o-", ms=3, color=COLOURS[way], label=way if place == 0 else None)
    axes.axhline(0, color="#94a3b8", lw=0.8)
    axes.set(title="Gain on held-out items", xlabel="seconds of training" if seconds else "step", ylabel="oracle")
    axes.legend()
