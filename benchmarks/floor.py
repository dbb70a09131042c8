"""How near a step is to its floor: the fewest rows of each model that its loss needs, times a row's seconds.

    python benchmarks/floor.py [STEPS]

The rows are counted from the algorithm (`recipe.fewest_calls`), for the groups that the step kept. What a row takes is
measured after every step by making one of the step's own calls of each model again, bare: in the step's batch, with a
backward pass where the loss needs one. Processors, optimiser, noise and all that is ours are no part of the floor.

Keys of benchmarks/results.json, of the toy preset's own steps, unless STEPS is less than 20:

    floor_ratio      floor / step: the median over the steps
    floor_spread     the smallest and the largest
    floor_seconds    medians by "stage model", and of the whole "step"
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

import results
from recipe import ROUNDS, WARM, Calls, fewest_calls, models_of, open_way, rows_of, step
from speed import Call, Tape

from editr1.config.loading import load_config
from editr1.training.trainer import Trainer

QUICK = ("rollout.groups_per_step=1", "rollout.group_size=2")
Kind = tuple[str, str]
"""A stage and a model."""


def pick_calls(trainer: Trainer) -> tuple[Tape, dict[Kind, list[Call]]]:
    """Make a step; its largest call of each stage, model and policy."""
    tape, models = Tape(trainer), models_of(trainer)
    with tape.recording():
        step(trainer)
    picked: dict[Kind, dict[Any, Call]] = {}
    for call in tape.calls:
        for name, model in models.items():
            if getattr(call.function, "__self__", None) is model:
                policies = picked.setdefault((call.part, name), {})
                largest = policies.get(call.policy)
                if largest is None or rows_of(call) > rows_of(largest):
                    policies[call.policy] = call
    return tape, {kind: [*policies.values()] for kind, policies in picked.items()}


def row_seconds(tape: Tape, picked: Mapping[Kind, list[Call]]) -> dict[Kind, float]:
    """Seconds of a row of each stage and model, the mean over the policies that it is computed with."""
    return {kind: fmean(tape.make_again(call) / rows_of(call) for call in calls) for kind, calls in picked.items()}


def floor_of(rows: Calls, seconds: Mapping[Kind, float]) -> dict[Kind, float]:
    """Seconds of these rows of each stage and model, which a step cannot do without."""
    return {
        (stage, name): count * seconds[stage, name] for stage, models in rows.items() for name, count in models.items()
    }


def measure(quick: bool = False, steps: int = ROUNDS) -> dict[str, Any]:
    """The keys of results.json; `quick` measures one step of two edits."""
    floors, totals = list[dict[Kind, float]](), list[float]()
    with tempfile.TemporaryDirectory() as out:
        trainer = open_way(Trainer, load_config("toy", [*(QUICK if quick else ()), f"out={out}"]))
        for _ in range(WARM):
            step(trainer)
        tape, picked = pick_calls(trainer)
        for _ in range(1 if quick else steps):
            row = step(trainer)
            rows = fewest_calls(trainer, row["groups_kept"])
            floors.append(floor_of(rows, row_seconds(tape, picked)))
            totals.append(sum(row["seconds"].values()))
    ratios = [sum(floor.values()) / total for floor, total in zip(floors, totals, strict=True)]
    seconds = {" ".join(kind): median(floor[kind] for floor in floors) for kind in floors[0]}
    return {
        "floor_ratio": median(ratios),
        "floor_spread": [min(ratios), max(ratios)],
        "floor_seconds": {**seconds, "step": median(totals)},
    }


def main() -> None:
    """Measure, print, write."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    figures = measure(steps=steps)
    print(json.dumps(figures, indent=1))
    if steps >= ROUNDS:
        results.add("floor", figures, "python benchmarks/floor.py")


if __name__ == "__main__":
    main()
