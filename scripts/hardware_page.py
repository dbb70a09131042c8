"""The table and the plot of docs/hardware.md: `python scripts/hardware_page.py docs`.

A cell is what `editr1 plan PRESET --gpus GPUS --judge elsewhere|beside SETTINGS` says, unless a file that
`benchmarks/gpu.py` wrote into benchmarks/gpu_results has its editor, settings and card: then it has what was measured,
and is marked so. The page keeps its words: what is between the two marks is written again, and nodes.png beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from matplotlib.figure import Figure

from editr1.config.loading import load_config
from editr1.config.settings import Config, ParallelConfig, RolloutConfig
from editr1.planning.forecast import HOUR, NODES, Forecast, Place, forecast, last_that_pays, scaling
from editr1.planning.gpus import KINDS, Gpus, parse_gpus
from editr1.planning.judging import judge_cost
from editr1.planning.pipelines import shipped
from editr1.planning.plan import GB, Plan, Planner
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
RESULTS = Path(__file__).parents[1] / "benchmarks" / "gpu_results"
SAME = {"tiny": False, "side": 512, "edits": RolloutConfig().group_size, "steps": RolloutConfig().steps}
"""What `benchmarks/gpu.py` must have measured for a row of the table: a group of the presets."""
NEAR = 0.15
"""By how much a card's memory may differ from that in the name of its kind."""
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


@dataclass(frozen=True)
class Measured:
    """A step of one group on a card.

    Attributes:
        card: Its name.
        date: Of the measurement.
        seconds: Of the step; None if the card's memory did not do.
        peak: GB at most.
    """

    card: str
    date: str
    seconds: float | None
    peak: float = 0.0


Measurements = Mapping[tuple[str, str, str], Measured]
"""By editor, setting and kind of GPU, as `editr1.planning.pipelines.EDITORS`, `setting_of` and `KINDS` name them."""


def read_measurements(folder: Path = RESULTS) -> Measurements:
    """What the files of `benchmarks/gpu.py` have for the table."""
    measured: dict[tuple[str, str, str], Measured] = {}
    for file in sorted(folder.glob("*.json")):
        for editor, rows in json.loads(file.read_text(encoding="utf-8"))["editors"].items():
            for setting, row in rows.items():
                made = row["measured_with"]
                kind = kind_of(made["card"], made["memory_bytes"])
                is_told = row.get("failed") in (None, "out of memory")  # else it says nothing of the card
                if kind is None or not is_told or any(made[name] != value for name, value in SAME.items()):
                    continue
                own = made["card"], made["date"]
                if "failed" in row:
                    measured[editor, setting, kind] = Measured(*own, None)
                else:
                    peak = max(row["peak_bytes"].values()) / GB
                    measured[editor, setting, kind] = Measured(*own, row["seconds"]["step"], peak)
    return measured


def kind_of(card: str, memory: float) -> str | None:
    """The kind of a card with this name and so many bytes; None if the planner does not know it."""
    for kind in KINDS.values():
        has_name = kind.name.partition("-")[0] in card.replace(" ", "")
        if has_name and abs(memory / GB / kind.memory - 1) < NEAR:
            return kind.name
    return None


def setting_of(config: Config) -> str | None:
    """The name that `benchmarks/gpu.py` has for such a run; None if it measures none."""
    memory = config.memory
    if memory.offload or memory.vae_tiling or memory.attention or config.parallel != ParallelConfig():
        return None
    switches = {
        "checkpointing": memory.gradient_checkpointing,
        "compile": memory.compile,
        "cache": memory.cache is not None,
        "autocast": config.adapter.autocast,
        "tf32": memory.tf32,
    }
    switched = [name for name, is_on in switches.items() if is_on]
    return " ".join([memory.quantize or "bf16", *switched, f"micro_batch={config.optim.micro_batch}"])


def cell(plan: Plan, gpus: Gpus, measurements: Measurements) -> str:
    """Peak and hours with the judge elsewhere, and beside; nothing where there are too few GPUs."""
    if gpus.total % plan.config.parallel.shard:
        return ""
    places = get_args(Place)[:2]
    elsewhere, beside = (planned(*on(plan, gpus, place)) for place in places)
    own = shipped().get(plan.config.editor.path), setting_of(plan.config), gpus.kind.name
    measured = measurements.get((str(own[0]), str(own[1]), own[2])) if gpus.total == 1 else None
    if measured is None:
        return f"planned: {elsewhere} / {beside}"
    return f"measured ({measured.card}, {measured.date}): {told(measured, plan.config)} / planned: {beside}"


def planned(plan: Plan, ahead: Forecast) -> str:
    """Hours, or that it does not fit, and the peak of memory."""
    return f"{ahead.hours(STEPS):.0f} h, {plan.peak:.1f} GB" if plan.fits else f"no, {plan.peak:.1f} GB"


def told(measured: Measured, config: Config) -> str:
    """The same of a measured group: a step has `groups_per_step` of them."""
    if measured.seconds is None:
        return "no"
    hours = measured.seconds * config.rollout.groups_per_step * STEPS / HOUR
    return f"{hours:.0f} h, {measured.peak:.1f} GB"


def table(plans: Mapping[tuple[str, str], Plan], measurements: Measurements) -> Iterator[str]:
    """The rows of the table."""
    yield f"| Editor | Settings | {' | '.join(GPUS)} |"
    yield "| --- " * (len(GPUS) + 2) + "|"
    for (editor, settings), plan in plans.items():
        cells = [cell(plan, parse_gpus(gpus), measurements) for gpus in GPUS]
        yield f"| {editor} | {settings} | {' | '.join(cells)} |"


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
    content = "\n".join([BEGIN, *table(plans, read_measurements()), "", words, END])
    page.write_text(before + content + after, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
