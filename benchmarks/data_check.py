"""Time and memory of `editr1 data check` by the number of lines: `python benchmarks/data_check.py`.

The lines name 200 pictures, so that a million of them fit on a small disk; every hundredth line is an earlier one.
Memory is the peak of a process of its own; that of 1,000 lines is what Python and its libraries take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = 200
CHECK = """
import resource, sys
from pathlib import Path
from editr1.data.checking.check import DataCheck
check = DataCheck(Path(sys.argv[1]))
found = sum(1 for _ in check.run())
print(check.counts.items, found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write(folder: Path, lines: int) -> int:
    """Write a dataset, and return how many of its lines repeat another."""
    folder.mkdir()
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    repeated = range(100, lines, 100)
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for number in range(lines):
            text = number - 1 if number in repeated else number
            item = {"source": f"{text % PICTURES}.png", "instruction": f"Make the object number {text} bright red."}
            file.write(json.dumps({**item, "requirement": "It is red.", "task": f"task {number % 10}"}) + "\n")
    return len(repeated)


def measure(lines: int) -> tuple[float, float]:
    """Seconds and peak memory in MB of a check that finds the planted repetitions and nothing else."""
    with tempfile.TemporaryDirectory() as temporary:
        expected = write(folder := Path(temporary) / "data", lines)
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CHECK, str(folder)], capture_output=True, text=True, check=True, timeout=3600
        )
        seconds = time.perf_counter() - begin
    items, found, kilobytes = map(int, done.stdout.split())
    assert (items, found) == (lines, expected), (items, found)
    return seconds, kilobytes / 1000


def main() -> None:
    """Print a row for each number of lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    for lines in parser.parse_args().lines:
        seconds, memory = measure(lines)
        print(f"{lines:>9,} lines: {seconds:6.1f} s, {memory:5.0f} MB at the peak", flush=True)


if __name__ == "__main__":
    main()
