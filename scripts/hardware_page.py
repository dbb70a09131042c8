"""The planned table and plot of docs/hardware.md: `python scripts/hardware_page.py docs`.

Every cell is what `editr1 plan PRESET --gpus GPUS --judge elsewhere|beside SETTINGS` says. The page keeps its words:
what is between the two marks is written again, and nodes.png beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from matplotlib.figure import Figure

from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.planning.forecast import NODES, Forecast, Place, forecast, last_that_pays, scaling
from editr1.planning.gpus import Gpus, parse_gpus
from editr1.planning.judging import judge_cost
from editr1.planning.plan import Plan, Planner
from editr1.planning.workload import load_of

FRUGAL = ("memory.offload=true", "memory.cache=cache")
SPREAD = ("parallel.shard=8",)
QUANTISED = (*FRUGAL, "memory.quantize=nf4", "memory.vae_tiling=true")
EDITORS = {
    "Qwen-Image-Edit-2511": ("qwen_image_edit_2511", QUANTISED),
    "FLUX.1 Kontext": ("flux_kontext", QUANTISED),
    "FLUX.2 klein 4B": ("flux2_klein", FRUGAL),
}
"""The preset of each, and what makes it fit in 24 GB."""
PRESET = "as the preset"
GPUS = ("RTX4090-24G", "L40S-48G", "H100-80G", "H200-141G", "8xH100-80G")
JUDGE = "judge.model=Qwen/Qwen2.5-VL-7B-Instruct"
STEPS = 250
BEGIN, END = "<!-- planned: begin -->", "<!-- planned: end -->"


def settings(preset: str, changes: Sequence[str]) -> Config:
    """A run's settings, with the judge of the table."""
    return load_config(preset, [JUDGE, *changes])


def on(plan: Plan, gpus: Gpus, place: Place) -> tuple[Plan, Forecast]:
    """The plan on other GPUs, with the judge elsewhere or beside."""
    judge = judge_cost(plan.config)
    extra = judge.bytes if judge and place == "beside" else 0.0
    load = load_of(plan.config, gpus.total, remote=place == "elsewhere")
    moved = replace(plan, gpus=gpus, load=load, extra=extra)
    return moved, forecast(moved, judge, place, gpus)


def cell(plan: Plan, gpus: Gpus) -> str:
    """Peak and hours with the judge elsewhere, and beside; nothing where there are too few GPUs."""
    if gpus.total % plan.config.parallel.shard:
        return ""
    words, places = [], get_args(Place)[:2]
    for place in places:
        moved, ahead = on(plan, gpus, place)
        peak = f"{moved.peak:.1f} GB"
        words.append(f"{ahead.hours(STEPS):.0f} h, {peak}" if moved.fits else f"no, {peak}")
    return " / ".join(words)


def table(plans: Mapping[tuple[str, str], Plan]) -> Iterator[str]:
    """The rows of the table."""
    yield f"| Editor | Settings | {' | '.join(GPUS)} |"
    yield "| --- " * (len(GPUS) + 2) + "|"
    for (editor, settings), plan in plans.items():
        yield f"| {editor} | {settings} | {' | '.join(cell(plan, parse_gpus(gpus)) for gpus in GPUS)} |"


def draw_nodes(plans: Mapping[str, Plan], path: Path) -> dict[str, int | None]:
    """Plot seconds per step by nodes of 8 H100; the last number of nodes that pays, by editor."""
    figure = Figure(figsize=(8, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    paying = {}
    for editor, plan in plans.items():
        moved, _ = on(plan, parse_gpus("8xH100-80G"), "elsewhere")
        rows = scaling(moved, judge_cost(plan.config), "elsewhere")
        axes.plot(NODES, [each.timeline.end for _, each in rows], marker="o", label=editor)
        paying[editor] = last_that_pays(rows)
    axes.set(xscale="log", yscale="log", xlabel="nodes of 8 H100", ylabel="seconds per step (planned)")
    axes.set_xticks(NODES, [str(count) for count in NODES])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
    return paying


def main(folder: Path) -> None:
    """Plan all, and write."""
    plans: dict[tuple[str, str], Plan] = {}
    for editor, (preset, frugal) in EDITORS.items():
        planner = Planner(partial(settings, preset), parse_gpus(GPUS[-1]))
        for changes in ((), frugal, SPREAD):
            words = " ".join(f"`{change.partition('.')[2]}`" for change in changes) or PRESET
            plans[editor, words] = planner.plan(changes)
            print(editor, words, f"{plans[editor, words].peak:.1f} GB", flush=True)
    first = {editor: plans[editor, PRESET] for editor in EDITORS}
    paying = draw_nodes(first, folder / "nodes.png")
    page = folder / "hardware.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    told = ", ".join(f"{editor} {nodes or f'{NODES[-1]} and more'}" for editor, nodes in paying.items())
    words = f"Nodes of 8 H100 up to which twice as many make a step at least 1.5 times as fast: {told}."
    content = "\n".join([BEGIN, *table(plans), "", words, END])
    page.write_text(before + content + after, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
