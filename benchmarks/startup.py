"""How much later the first step of `editr1 train` ends on a million lines of data: `python benchmarks/startup.py`.

The command itself trains the toy preset for one small step on folders of 1,000 and of 1,000,000 lines, which name 200
pictures; they take turns. Time counts from the start of the process to the row of the first step in metrics.jsonl.
Keys of benchmarks/results.json:

    startup_delta_s       seconds on 1,000,000 lines - seconds on 1,000: medians
    startup_seconds       by lines: median, smallest, largest
    startup_peak_mb       by lines: highest resident memory of the process, the largest of the rounds
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import results
from data_check import write

from editr1.training.run_files import METRICS

LINES, ROUNDS = (1_000, 1_000_000), 3
STEP = ("rollout.groups_per_step=2", "rollout.group_size=4", "steps=1", "trackers=[]")
DEADLINE = 1800.0  # seconds


def first_step(data: Path, out: Path) -> tuple[float, float]:
    """Seconds to the end of the first step of a new run, and its peak of resident memory in MB.

    Raises:
        SystemExit: The command failed, or took longer than `DEADLINE`.
    """
    settings = ("data.kind=jsonl", f"data.path={data}", f"out={out}", *STEP)
    begin, peak = time.time(), 0.0
    command = (sys.executable, "-m", "editr1", "train", "toy", *settings)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, peak_mb(process.pid))
        if time.time() > begin + DEADLINE:
            process.kill()
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"editr1 train ended with {process.returncode} on {data}")
    return (out / METRICS).stat().st_mtime - begin, peak


def peak_mb(process: int) -> float:
    """Highest resident memory of a process so far, in MB; 0 for one that has just ended.

    What `wait` tells of a child is no less than what its parent held when it began.
    """
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6 if "VmHWM:" in status else 0.0


def measure(quick: bool = False) -> dict[str, Any]:
    """The keys of results.json; `quick` measures 10 and 100 lines once."""
    lines, rounds = ((10, 100), 1) if quick else (LINES, ROUNDS)
    seconds: dict[int, list[float]] = {count: [] for count in lines}
    peaks: dict[int, list[float]] = {count: [] for count in lines}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in lines:
            write(folder / f"data-{count}", count)
        for number in range(rounds):
            for count in lines:
                spent, peak = first_step(folder / f"data-{count}", folder / f"run-{count}-{number}")
                seconds[count].append(spent)
                peaks[count].append(peak)
    few, many = lines
    return {
        "startup_delta_s": median(seconds[many]) - median(seconds[few]),
        "startup_seconds": {count: [median(each), min(each), max(each)] for count, each in seconds.items()},
        "startup_peak_mb": {count: max(each) for count, each in peaks.items()},
    }


def main() -> None:
    """Measure, print, write."""
    figures = measure()
    print(json.dumps(figures, indent=1))
    results.add("startup", figures, "python benchmarks/startup.py")


if __name__ == "__main__":
    main()
