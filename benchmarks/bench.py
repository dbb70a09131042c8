"""The whole benchmark, or parts of it: `python benchmarks/bench.py [PART ...] [--quick]`, `... report`.

The parts are measured one after the other, and each writes its keys of benchmarks/results.json when it is done, so that
a run that was stopped goes on with the parts that are left. In the end RESULTS.md and results.svg are written. The exit
code is 1 if a bar of these parts (`report.BARS`) is missed. "report" as the only part measures nothing and reports what
is there. `--quick` runs the same code in small and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cost
import floor
import gain
import judge_client
import memory
import ranks
import recipe
import report
import results
import sharding
import speed
import startup

Part = Callable[[bool], dict[str, Any]]
"""Measures, in small if that is asked for, and returns keys of results.json."""


def measure_sharding(quick: bool) -> dict[str, Any]:
    """Part "sharding"."""
    return {"sharding": sharding.measure(50, (1,)) if quick else sharding.measure(400)}


PARTS: dict[str, Part] = {
    "memory": memory.measure,  # first: what others have freed could hide growth
    "identical": recipe.measure,
    "floor": floor.measure,
    "step": speed.measure,
    "cost": cost.measure,
    "startup": startup.measure,
    "gain": gain.measure,
    "judge_client": judge_client.measure,
    "ranks": ranks.measure,
    "sharding": measure_sharding,
}


def run(parts: Sequence[str], quick: bool, folder: Path) -> dict[str, Any]:
    """Measure these parts in the order of `PARTS`; all results, or those of `quick`."""
    small: dict[str, Any] = {}
    for name, act in PARTS.items():
        if name not in parts:
            continue
        print(f"{name} ...", flush=True)
        measure = partial(gain.measure, folder=folder) if name == "gain" else act
        figures = measure(quick)
        if quick:
            small |= figures
        else:
            results.add(name, figures, f"python benchmarks/bench.py {name}")
    return small if quick else results.read()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and name the bars that are missed; 1 if there are any."""
    parser = argparse.ArgumentParser(description="Speed, memory and time to gain, against their bars.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "report"], help="Parts to measure; all by default.")
    parser.add_argument("--quick", action="store_true", help="Try the code in small; writes nothing.")
    parser.add_argument("--folder", type=Path, default=gain.FOLDER, help="Folder of the runs of part gain.")
    options = parser.parse_args(arguments)
    only_report = options.parts == ["report"]
    parts = [*PARTS] if only_report or not options.parts else options.parts
    figures = results.read() if only_report else run(parts, options.quick, options.folder)
    if options.quick:
        print(json.dumps(figures, indent=1))
        return 0
    report.write(figures)
    print(f"{results.HERE / report.PAGE}")
    broken = report.missed(figures, parts)
    for words in broken:
        print(f"missed: {words}", file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    results.finish(main)
