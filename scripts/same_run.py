"""Whether two runs are the same but for timings: `python scripts/same_run.py RUN OTHER`, exit code 1 if they are not.

Compares metrics.jsonl row by row and the weights of the newest checkpoint bit for bit. It proves a change of structure:
train some steps with the same settings before and after it (`CONTRIBUTING.md`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from editr1.files import read_lines
from editr1.training import checkpoint
from editr1.training.run_files import CHECKPOINTS, METRICS

TIMINGS = ("seconds", "images_per_s", "imbalance", "rank_seconds", "judge_latency")


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run without their timings."""
    return [{key: row[key] for key in row if key not in TIMINGS} for row in read_lines(run / METRICS)]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint, by file and name."""
    folder = checkpoint.latest(run / CHECKPOINTS)
    files = sorted(folder.rglob("*.safetensors")) if folder else []
    return {f"{file.relative_to(run)}: {name}": value for file in files for name, value in load_file(file).items()}


def differences(run: Path, other: Path) -> Iterator[str]:
    """What differs, a line each."""
    rows, others = rows_of(run), rows_of(other)
    if len(rows) != len(others):
        yield f"{len(rows)} steps, {len(others)} steps"
    for row, twin in zip(rows, others, strict=False):
        for key in dict.fromkeys([*row, *twin]):
            if row.get(key) != twin.get(key):
                yield f"step {row['step']}: {key}: {row.get(key)}, {twin.get(key)}"
    weights, twins = weights_of(run), weights_of(other)
    for name in sorted(weights.keys() | twins.keys()):
        if name not in weights or name not in twins or not torch.equal(weights[name], twins[name]):
            yield f"weights: {name}"


def main() -> int:
    """Compare two run folders."""
    if len(sys.argv) != 3:
        print("usage: python scripts/same_run.py RUN OTHER", file=sys.stderr)
        return 2
    run, other = map(Path, sys.argv[1:])
    lines = list(differences(run, other))
    print("\n".join(lines[:20]) or f"The same: {len(rows_of(run))} steps, {len(weights_of(run))} tensors.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
