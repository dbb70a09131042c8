"""A plan as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from editr1.planning.forecast import Forecast, last_that_pays
from editr1.planning.judging import JudgeCost
from editr1.planning.plan import Plan

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
    """All that is known; `better` are the changes that were found for a run that does not fit, and what they give."""
    changes, changed = ([], None) if better is None else (better[0], _facts(better[1], better[2], price))
    return {
        **_facts(plan, ahead, price),
        "gpus": str(plan.gpus),
        "changes": changes,
        "changed": changed,
        "judge": {
            "replicas": ahead.replicas,
            "gpus": ahead.judge_gpus,
            "name": judge and judge.name,
            "tflops_per_edit": judge and judge.flops / 1e12,
            "wait_seconds": ahead.timeline.wait,
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


def as_text(facts: dict[str, Any], steps: int, memory: float, judged: str) -> Iterator[str]:
    """The same for people, line by line."""
    denoiser = facts["denoiser"]
    trained = f"{denoiser['trained'] / 1e6:.1f} million trained"
    yield f"denoiser   {denoiser['parameters'] / 1e9:.2f} billion parameters, {trained}"
    yield from _state(facts, steps, memory)
    if not facts["fits"]:
        yield from _remedy(facts, steps, memory)
    judge = facts["judge"]
    if judge["replicas"]:
        yield (
            f"judge      {judge['name']}: {judge['replicas']} x, on {judge['gpus']} GPUs more; "
            f"{judge['tflops_per_edit']:.1f} TFLOPs per edit, trainers wait {judge['wait_seconds']:.1f} s per step"
        )
    else:
        yield f"judge      {judged}"
    rows = ", ".join(f"{row['nodes']}: {row['seconds_per_step']:.0f} s" for row in facts["scaling"])
    if rows:
        yield f"nodes      seconds per step by nodes: {rows}"
    if facts["nodes_that_pay"] is not None:
        yield f"           more than {facts['nodes_that_pay']} do not pay: twice as many are not 1.5 times as fast"
    yield facts["assumptions"]


def _state(facts: dict[str, Any], steps: int, memory: float) -> Iterator[str]:
    parts = ", ".join(f"{name} {size:.1f}" for name, size in facts["memory_gb"]["at_peak"].items() if size >= 0.05)
    verdict = "fits" if facts["fits"] else "does not fit"
    yield f"memory     {facts['peak_memory_gb']:.1f} GB of {memory:g} per GPU, in {facts['peak_stage']!r}: {verdict}"
    yield f"           {parts}"
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in facts["seconds"].items() if spent >= 0.05)
    rate = f"{facts['images_per_gpu_second']:.3f} images per GPU-second"
    yield f"step       {facts['seconds_per_step']:.1f} s ({stages}); {rate}"
    cost = "" if facts["cost"] is None else f", {facts['cost']:,.0f} at that price"
    if sent := sum(facts["sent_gb"].values()):
        yield f"           {sent:,.0f} GB of weights and tokens come to each GPU from others"
    yield f"run        {steps} steps take {facts['hours']:.1f} hours{cost}"


def _remedy(facts: dict[str, Any], steps: int, memory: float) -> Iterator[str]:
    changed = facts["changed"]
    if changed["fits"]:
        yield f"fits with  {' '.join(facts['changes'])}"
    else:
        tried = f"; nearest: {' '.join(facts['changes'])}" if facts["changes"] else ""
        yield f"No setting that the planner knows makes it fit{tried}."
    yield from _state(changed, steps, memory)
