"""Whether memory stays flat: `python benchmarks/memory.py [STEPS]`.

A process trains the toy preset in small steps, and notes its resident memory after each. Keys of
benchmarks/results.json, unless STEPS is less than 200:

    rss_slope_mb_per_step    slope of the least squares line through the steps after the first `WARM`
    rss_mb                   megabytes after every step
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import results

from editr1.config.loading import load_config
from editr1.training.open import open_trainer

STEPS, WARM = 200, 20
SMALL = ("rollout.groups_per_step=2", "rollout.group_size=4")  # the same code, less of it
QUICK = ("rollout.groups_per_step=1", "rollout.group_size=2")


def slope(values: Sequence[float]) -> float:
    """Slope per place of the least squares line through at least two values."""
    return float(np.polyfit(range(len(values)), values, 1)[0])


def measure(quick: bool = False, steps: int = STEPS) -> dict[str, Any]:
    """The keys of results.json; `quick` makes three steps of two edits."""
    steps, warm, sizes = (3, 1, QUICK) if quick else (steps, WARM, SMALL)
    process, held = psutil.Process(), list[float]()
    with tempfile.TemporaryDirectory() as out:
        trainer = open_trainer(load_config("toy", [*sizes, f"steps={steps}", f"out={out}"]))
        trainer.train(on_step=lambda row: held.append(process.memory_info().rss / 1e6))
    return {"rss_slope_mb_per_step": slope(held[warm:]), "rss_mb": [round(each, 1) for each in held]}


def main() -> None:
    """Measure, print, write."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    figures = measure(steps=steps)
    print(f"{figures['rss_slope_mb_per_step']:+.4f} MB per step over {steps - WARM} steps")
    if steps >= STEPS:
        results.add("memory", figures, "python benchmarks/memory.py")


if __name__ == "__main__":
    main()
