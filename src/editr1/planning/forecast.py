"""A plan with its judge: seconds of a step, replicas of the judge, money, and what more nodes would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

from editr1.planning.gpus import Gpus
from editr1.planning.judging import JudgeCost
from editr1.planning.plan import TERA, Plan
from editr1.planning.queueing import Call, Timeline, replicas_needed, run_step, stops_paying
from editr1.planning.workload import calls_of, load_of

Place = Literal["elsewhere", "beside", "none"]
NODES = (1, 2, 4, 8, 16, 32, 64, 128)
HOUR = 3600.0


@dataclass(frozen=True)
class Forecast:
    """A step of a run with its judge.

    Attributes:
        timeline: Of the step.
        replicas: Judges elsewhere; 0 if there are none.
        judge_gpus: GPUs that they take.
        images_per_gpu_second: Edits per second and GPU of the trainers.
    """

    timeline: Timeline
    replicas: int
    judge_gpus: int
    images_per_gpu_second: float

    def hours(self, steps: int) -> float:
        """Of a run."""
        return steps * self.timeline.end / HOUR


def forecast(plan: Plan, judge: JudgeCost | None, place: Place, gpus: Gpus, replicas: int | None = None) -> Forecast:
    """The step on some GPUs of the plan's kind.

    Args:
        plan: Of one process.
        judge: What a question costs; None for no judge.
        place: Where the judge computes: on GPUs of its own of the same kind, or on those of the trainers.
        gpus: The trainers' GPUs.
        replicas: Judges elsewhere; None for as many as keep the trainers from waiting.
    """
    rate = gpus.kind.tflops * TERA * plan.efficiency
    answer = judge.flops / rate if judge else 0.0
    workers, train = step_of(plan, gpus.total, answer if place == "beside" else 0.0)
    count, each = 0, judge.gpus(gpus.kind) if judge else 0
    if judge is not None and place == "elsewhere":
        answer /= each
        count = replicas or replicas_needed(workers, train, answer)
    timeline = run_step(workers, train, count, answer)
    edits = plan.config.rollout.group_size * plan.config.rollout.groups_per_step
    return Forecast(timeline, count, count * each, edits / timeline.end / gpus.total)


def step_of(plan: Plan, ranks: int, answer: float) -> tuple[list[list[Call]], float]:
    """The calls of all workers with some number of ranks, and the seconds of training after them.

    Args:
        plan: Of one process.
        ranks: Processes.
        answer: Seconds of the judge per edit on the trainers' own GPUs.
    """
    spent, load = plan.seconds, plan.load
    once = (spent["text"] + spent["encode"] + spent["rest"]) / load.calls
    edit = (spent["denoise"] + spent["decode"]) / load.edits
    calls = calls_of(plan.config, ranks)
    workers = [[(once + edit * made + answer * asked, asked) for made, asked in own] for own in calls]
    return workers, spent["train"] / load.rows * load_of(plan.config, ranks).rows + spent["update"]


def scaling(
    plan: Plan, judge: JudgeCost | None, place: Place, nodes: Sequence[int] = NODES
) -> list[tuple[int, Forecast]]:
    """Forecasts for other numbers of nodes that hold whole groups of ranks, each with as many judges as it needs."""
    group = lcm(plan.config.parallel.shard, plan.config.parallel.context)
    others = [replace(plan.gpus, nodes=count) for count in nodes if count * plan.gpus.count % group == 0]
    return [(gpus.nodes, forecast(plan, judge, place, gpus)) for gpus in others]


def last_that_pays(rows: Sequence[tuple[int, Forecast]]) -> int | None:
    """The number of nodes after which twice as many make a step little faster; None if all pay."""
    return stops_paying([(count, each.timeline.end) for count, each in rows])
