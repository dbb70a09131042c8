"""How much faster two processes train than one, on one machine with two cores.

    python benchmarks/ranks.py [ROUNDS]

Runs of the toy preset with one thread per process take turns: one process, two ranks of torchrun, and two independent
runs of one process at the same time, which share nothing but the machine. The last one shows what memory and caches
allow. Speeds are medians of images per second over the steps after the first. Writes key "ranks" of
benchmarks/results.json:

    efficiency    two ranks / (2 x one process); 1 is ideal
    independent   one of two independent runs / one process; what is lost without any communication
    spread        smallest and largest efficiency of a round
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import results

from editr1.files import read_lines

STEPS, ROUNDS = 8, 3
SIZES = ("rollout.groups_per_step=4", "rollout.group_size=8", f"steps={STEPS}", f"save_every={STEPS}")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def start(ranks: int, out: Path) -> subprocess.Popen[bytes]:
    """A run of the toy preset; its folder must be new."""
    command = [*TORCHRUN, f"--nproc-per-node={ranks}", "-m", "editr1", "train", "toy", *SIZES, f"out={out}"]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def speed(out: Path) -> float:
    """Images per second: the median of the steps after the first."""
    return median(row["images_per_s"] for row in read_lines(out / "metrics.jsonl")[1:])


def speeds(folder: Path, runs: dict[str, int]) -> list[float]:
    """Speeds of runs that go on at the same time, by the name of their folder and the number of their ranks."""
    processes = [start(ranks, folder / name) for name, ranks in runs.items()]
    if any(process.wait() for process in processes):
        raise SystemExit("a run failed")
    return [speed(folder / name) for name in runs]


def measure(quick: bool = False, rounds: int = ROUNDS) -> dict[str, Any]:
    """The key of results.json; `quick` makes one round."""
    rounds = 1 if quick else rounds
    ones, twos, independent = [], [], []
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            folder = Path(name) / str(number)
            ones += speeds(folder, {"one": 1})
            twos += speeds(folder, {"two": 2})
            independent += speeds(folder, {"left": 1, "right": 1})
    each = [two / (2 * one) for one, two in zip(ones, twos, strict=True)]
    figures = {
        "efficiency": median(twos) / (2 * median(ones)),
        "independent": median(independent) / median(ones),
        "spread": [min(each), max(each)],
        "images_per_s": {"one": median(ones), "two": median(twos)},
        "rounds": rounds,
    }
    return {"ranks": figures}


def main() -> None:
    """Measure, print, write."""
    figures = measure(rounds=int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    results.add("ranks", figures, "python benchmarks/ranks.py")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
