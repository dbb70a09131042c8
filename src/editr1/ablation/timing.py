"""Seconds of a step of each variant, beside those of the first one.

Figures of an idle machine: the steps of a variant and of the first one take turns, so that both see the same minutes.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from editr1.ablation.grid import Grid, config_of
from editr1.errors import parse_json, text_of
from editr1.files import write_file
from editr1.training.interrupts import Interrupts
from editr1.training.open import open_trainer

SECONDS = "seconds.json"
WARM = 2  # steps that do not count: in the first, the old policy is the trained one


def time_all(grid: Grid, out: Path, variants: Sequence[str], rounds: int) -> Iterator[str]:
    """Time the variants and add them to OUT/seconds.json; yields a line on each."""
    for variant in variants:
        timed = time_variant(grid, variant, rounds)
        write_file(out / SECONDS, json.dumps({**read_seconds(out), variant: timed}, indent=1).encode() + b"\n")
        low, high = timed["spread"]
        ratio = f"{timed['ratio']:.3f} [{low:.3f}, {high:.3f}] of {grid.first}"
        yield f"{variant}: {timed['seconds']:.3f} s a step, {ratio}"


def time_variant(grid: Grid, variant: str, rounds: int) -> dict[str, Any]:
    """Medians of the seconds of steps of a variant and of the first one, the median of their ratios, its middle half.

    The machine's load before, which ought to be near 0, is kept beside.
    """
    load, seconds = os.getloadavg()[0], dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            way: _stepper(grid, name, Path(folder, way)) for way, name in (("own", variant), ("first", grid.first))
        }
        for _ in range(WARM + rounds):
            for way, step in steps.items():
                seconds.setdefault(way, []).append(step())
    own, first = (seconds[way][WARM:] for way in ("own", "first"))
    ratios = [a / b for a, b in zip(own, first, strict=True)]
    return {
        "seconds": median(own),
        "seconds_of_first": median(first),
        "ratio": median(ratios),
        "spread": np.quantile(ratios, [0.25, 0.75]).tolist(),
        "rounds": rounds,
        "load": load,
        "machine": machine(),
    }


def read_seconds(out: Path) -> dict[str, Any]:
    """What is timed, by variant; nothing if there is no file."""
    path = out / SECONDS
    return dict(parse_json(text_of(path), str(path))) if path.exists() else {}


def machine() -> str:
    """The machine in words."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{device}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _stepper(grid: Grid, variant: str, out: Path) -> Callable[[], float]:
    """Makes one step of a run; returns its seconds."""
    trainer = open_trainer(config_of(grid, variant, 0, out))
    return lambda: float(sum(trainer.train_step(None, Interrupts())["seconds"].values()))
