"""A plan as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from editr1.planning.forecast import Forecast, last_that_pays
from editr1.planning.judging import JudgeCost
from editr1.planning.plan import Plan

LONG = 48
"""Hours of a run from which on days are told too."""
ASSUMPTIONS = (
    "planned, not measured: a GPU reaches {efficiency:.0%} of its data sheet's dense bfloat16 speed, no group is "
    "dropped, pictures are square, an item has one source and a short instruction; judges answer at the same share of "
    "speed. Left out: loading, evaluation, checkpoints, the sum of gradients over GPUs, unpacking of quantised weights."
)


def as_json(
    plan: Plan,
    ahead: Forecast,
    better: tuple[list[str], Plan, Forecast] | None,
    judge: JudgeCost | None,
    scaling: Sequence[tuple[int, Forecast]],
    price: float | None,
) -> dict[str, Any]:
    """All that is known; `better` are the changes that were found for a run that does not fit, and what they give.

    Judge and nodes are those of the run with the changes.
    """
    changes, changed = ([], None) if better is None else (better[0], _facts(better[1], better[2], price))
    usable = ahead if better is None else better[2]
    return {
        **_facts(plan, ahead, price),
        "gpus": str(plan.gpus),
        "changes": changes,
        "changed": changed,
        "judge": {
            "replicas": usable.replicas,
            "gpus": usable.judge_gpus,
            "name": judge and judge.name,
            "tflops_per_edit": judge and judge.flops / 1e12,
            "wait_seconds": usable.timeline.wait,
        },
        "scaling": [
            {"nodes": nodes, "seconds_per_step": each.timeline.end, "judge_replicas": each.replicas}
            for nodes, each in scaling
        ],
        "nodes_that_pay": last_that_pays(scaling),
        "assumptions": ASSUMPTIONS.format(efficiency=plan.efficiency),
    }


def _facts(plan: Plan, ahead: Forecast, price: float | None) -> dict[str, Any]:
    step, hours = plan.step, ahead.hours(plan.config.steps)
    gpus = plan.gpus.total + ahead.judge_gpus
    return {
        "denoiser": {"parameters": step.parameters, "trained": step.trained},
        "peak_memory_gb": plan.peak,
        "peak_stage": plan.fullest,
        "memory_gb": {"stages": plan.peaks, "at_peak": plan.parts},
        "fits": plan.fits,
        "seconds_per_step": ahead.timeline.end,
        "seconds": plan.seconds,
        "rows": {"edits": plan.load.edits, "train": plan.load.rows},
        "tflops": plan.tflops,
        "sent_gb": plan.sent,
        "images_per_gpu_second": ahead.images_per_gpu_second,
        "hours": hours,
        "cost": None if price is None else hours * gpus * price,
    }


def as_text(facts: dict[str, Any], steps: int, memory: float) -> Iterator[str]:
    """The same for people, line by line; `facts` have the place of the judge and what is not counted besides."""
    denoiser, aside = facts["denoiser"], ", leaving aside what is not counted" if facts["not_counted"] else ""
    trained = f"{denoiser['trained'] / 1e6:.1f} million trained"
    yield f"denoiser   {denoiser['parameters'] / 1e9:.2f} billion parameters, {trained}"
    yield from _memory(facts, memory, aside)
    if facts["fits"]:
        yield from _time(facts, steps)
    else:
        yield from _remedy(facts, steps, memory, aside)
    yield f"judge      {_judge(facts['judge'])}"
    rows = ", ".join(f"{row['nodes']}: {row['seconds_per_step']:.0f} s" for row in facts["scaling"])
    if rows:
        yield f"nodes      seconds per step by nodes: {rows}"
    if facts["nodes_that_pay"] is not None:
        yield f"           more than {facts['nodes_that_pay']} do not pay: twice as many are not 1.5 times as fast"
    yield from (f"NOT COUNTED: {line}" for line in facts["not_counted"])
    yield facts["assumptions"]


def _judge(judge: dict[str, Any]) -> str:
    if judge["place"] == "none":
        return "none"
    if judge["place"] == "beside":
        return f"{judge['name']}: beside each trainer, in its memory and time"
    count = judge["replicas"]
    return (
        f"{judge['name']}: {count} {'replica' if count == 1 else 'replicas'}, on {judge['gpus']} GPUs more; "
        f"{judge['tflops_per_edit']:.1f} TFLOPs per edit, trainers wait {judge['wait_seconds']:.1f} s per step"
    )


def _memory(facts: dict[str, Any], memory: float, aside: str) -> Iterator[str]:
    parts = ", ".join(f"{name} {size:.1f}" for name, size in facts["memory_gb"]["at_peak"].items() if size >= 0.05)
    verdict = f"fits{aside}" if facts["fits"] else "does not fit"
    yield f"memory     {facts['peak_memory_gb']:.1f} GB of {memory:g} per GPU, in {facts['peak_stage']!r}: {verdict}"
    if parts:
        yield f"           {parts}"


def _time(facts: dict[str, Any], steps: int) -> Iterator[str]:
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in facts["seconds"].items() if spent >= 0.05)
    rate = f"{facts['images_per_gpu_second']:.3f} images per GPU-second"
    yield f"step       {facts['seconds_per_step']:.1f} s ({stages}); {rate}"
    days = f" ({facts['hours'] / 24:.0f} days)" if facts["hours"] >= LONG else ""
    cost = "" if facts["cost"] is None else f", {facts['cost']:,.0f} at that price"
    if sent := sum(facts["sent_gb"].values()):
        yield f"           {sent:,.0f} GB of weights and tokens come to each GPU from others"
    yield f"run        {steps} steps take {facts['hours']:.1f} hours{days}{cost}"


def _remedy(facts: dict[str, Any], steps: int, memory: float, aside: str) -> Iterator[str]:
    changed, changes = facts["changed"], " ".join(facts["changes"])
    if changed["fits"]:
        yield f"fits with  {changes}"
    elif not changes:
        yield "No setting that the planner knows makes it fit, or takes less memory."
        return
    else:
        yield f"No setting that the planner knows makes it fit; nearest: {changes}"
    yield from _memory(changed, memory, aside)
    if changed["fits"]:
        yield from _time(changed, steps)
