"""How near a step is to its floor: the fewest rows of each model that its loss needs, times a row's seconds.

    python benchmarks/floor.py [STEPS]

The rows are counted from the algorithm (`recipe.fewest_rows`), for the groups that the step made and kept. What a row
takes is measured after every step by making one of the first steps' own calls of each model again, bare: in the step's
batch, with a backward pass where the loss needs one. Processors, optimiser, noise and all that is ours are no part of
the floor.

Keys of benchmarks/results.json, of the toy preset's own steps, unless STEPS is less than 20:

    floor_ratio      floor / step: the median over the steps
    floor_spread     the smallest and the largest
    floor_seconds    medians by "stage model" ("train policy"), and of the whole "step"
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from statistics import median
from typing import Any

import results
from recipe import ROUNDS, WARM, Calls, fewest_rows, models_of, open_way, rows_of, step
from speed import Call, Tape

from editr1.config.loading import load_config
from editr1.training.step_row import groups_made
from editr1.training.trainer import Trainer

QUICK = ("rollout.groups_per_step=1", "rollout.group_size=2")
Kind = tuple[str, str]
"""A stage and a model; of training, the policy."""


def pick_calls(trainer: Trainer) -> tuple[Tape, dict[Kind, Call]]:
    """Make a step; its largest call of each kind, which the tape makes again."""
    tape, models = Tape(trainer), models_of(trainer)
    with tape.recording():
        step(trainer)
    picked: dict[Kind, Call] = {}
    for call in tape.calls:
        for name, model in models.items():
            if getattr(call.function, "__self__", None) is model:
                kind = call.part, str(call.policy) if call.part == "train" else name
                if kind not in picked or rows_of(call) > rows_of(picked[kind]):
                    picked[kind] = call
    tape.clear()
    return tape, picked


def floor_of(rows: Calls, seconds: Mapping[Kind, float]) -> dict[Kind, float]:
    """Seconds of these rows, which a step cannot do without; `seconds` are those of one row of each kind."""
    kinds = {(stage, name): count for stage, models in rows.items() for name, count in models.items()}
    return {kind: count * seconds[kind] for kind, count in kinds.items()}


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
            rows = fewest_rows(trainer, groups_made(row), row["groups_kept"])
            seconds = {kind: tape.make_again(call) / rows_of(call) for kind, call in picked.items()}
            floors.append(floor_of(rows, seconds))
            totals.append(sum(row["seconds"].values()))
    ratios = [sum(floor.values()) / total for floor, total in zip(floors, totals, strict=True)]
    parts = {" ".join(kind): median(floor[kind] for floor in floors) for kind in floors[0]}
    return {
        "floor_ratio": median(ratios),
        "floor_spread": [min(ratios), max(ratios)],
        "floor_seconds": {**parts, "step": median(totals)},
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
