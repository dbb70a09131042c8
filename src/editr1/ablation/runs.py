"""The runs of a grid: trained step by step, measured on the same items and noise, resumable.

OUT/VARIANT/SEED is the folder of a run, with its measurements in `gains.jsonl`; OUT/untrained holds what the runs start
from. Several processes may share OUT: each takes runs that no other holds. A run is computed with one thread, so that
its figures are the same however many of them run side by side.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from editr1.ablation.grid import Grid, config_of
from editr1.config.settings import Config
from editr1.data.holdout import choose
from editr1.data.samples import EditDataset
from editr1.editors.policies import START
from editr1.errors import UserError
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits, toy_oracle
from editr1.evaluation.heldout.rows import EditRow
from editr1.files import JsonLines, in_turn, loader, locked, read_lines
from editr1.toy.world import ToyDataset
from editr1.training.alarms import sounded
from editr1.training.checkpoint import fixed_settings
from editr1.training.datasets import open_datasets
from editr1.training.log import StepProgress
from editr1.training.open import open_trainer
from editr1.training.run_files import AFTER, BETWEEN, LOCK, METRICS
from editr1.training.step_row import StepRow, groups_made
from editr1.training.trainer import Trainer

GAINS, UNTRAINED = "gains.jsonl", "untrained"
OF_THE_START = ("editor.", "judge.", "rewards.", "memory.", "adapter.init", "data.", "evaluation.")


ORACLES = {"oracle": "score", "done": "done", "preserved": "preserved"}
"""What is measured by the oracle, and its names for it."""


@dataclass(frozen=True)
class Measured:
    """A measurement of one run.

    Attributes:
        step: Steps that it has made.
        images: Edits that these have made.
        judge: The judge's reward of each measured edit; None where it gave none.
        oracle: The oracle's score of each, in the same order; empty for items that have no oracle.
        done: How far each does what was asked, by the oracle; empty without one, or where an earlier version measured.
        preserved: How far each leaves the rest as it was; likewise.
        alarms: By the name of each alarm that has sounded so far, the step at which it first did; None where an earlier
            version measured.
    """

    step: int
    images: int
    judge: list[float | None]
    oracle: list[float]
    done: list[float] = field(default_factory=list)
    preserved: list[float] = field(default_factory=list)
    alarms: dict[str, int] | None = None


def measurements(grid: Grid, folder: Path, settings: Mapping[str, Any]) -> JsonLines[Measured]:
    """The measurements in a folder; a UserError if they were made with other settings."""
    measuring = {name: getattr(grid, name) for name in ("items", "split", "edits", "eval_steps")}
    remedy = "give another --out, or move this folder away"
    head = {**measuring, "settings": settings}
    return JsonLines(folder / GAINS, "measurements", remedy, head=head, load=loader(Measured))


def run_of(grid: Grid, variant: str, seed: int, out: Path) -> tuple[Config, JsonLines[Measured]]:
    """The settings of a run and its measurements."""
    config = config_of(grid, variant, seed, out / variant / str(seed))
    return config, measurements(grid, config.out, fixed_settings(config))


def start_of(grid: Grid, config: Config, out: Path) -> JsonLines[Measured]:
    """The measurement of what a run starts from; runs that start from the same share it."""
    settings = {key: value for key, value in fixed_settings(config).items() if key.startswith(OF_THE_START)}
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return measurements(grid, out / UNTRAINED / name, settings)


def train_all(grid: Grid, out: Path, variants: Sequence[str]) -> Iterator[str]:
    """Train and measure all runs of these variants, seed by seed; yields a line on each measurement that was not done.

    Raises:
        UserError: A setting or a file is wrong; names the variant and the seed.
    """
    torch.set_num_threads(1)  # sums are rounded by the number of threads
    for seed, variant in product(range(grid.seeds), variants):
        yield from _train_if_free(grid, variant, seed, out)


def _train_if_free(grid: Grid, variant: str, seed: int, out: Path) -> Iterator[str]:
    try:
        with _taken(out / variant / str(seed)) as mine:
            for row in train_one(grid, variant, seed, out) if mine else ():
                yield f"{variant}, seed {seed}, step {row.step}: {mean_words(row)}"
    except UserError as error:
        raise UserError(f"variant {variant}, seed {seed}: {error}") from error


def train_one(grid: Grid, variant: str, seed: int, out: Path) -> Iterator[Measured]:
    """Train and measure one run, as far as that is not done; yields its measurements."""
    config, lines = run_of(grid, variant, seed, out)
    left = [step for step in grid.points if step not in {row.step for row in lines.rows}]
    if not left and start_of(grid, config, out).rows:
        return
    training, own_items = open_datasets(config)
    trainer = open_trainer(config, training)
    trainer.progress = StepProgress(trainer.step, config.steps, quiet=True)
    items = _toy_items(grid, config) if own_items is None else choose(own_items, grid.items)
    with in_turn(out / LOCK):
        _measure_start(grid, trainer, items, start_of(grid, config, out))
    for step in left:
        trainer.train(until=step)
        with trainer.ema.swap(), trainer.editor.policies.using("default"):
            folder = config.out / BETWEEN / f"step_{step:06d}"
            row = _measure(grid, trainer, items, folder, step)
        shutil.rmtree(config.out / AFTER, ignore_errors=True)  # the pictures of the last measurement stay
        folder.rename(config.out / AFTER)
        lines.append([asdict(row)])
        yield row


def mean_words(row: Measured) -> str:
    """The means of a measurement."""
    scored = [value for value in row.judge if value is not None]
    means = {"oracle": row.oracle, "judge": scored}
    return ", ".join(f"{name} {sum(values) / len(values):.4f}" for name, values in means.items() if values)


def _measure_start(grid: Grid, trainer: Trainer, items: EditDataset, start: JsonLines[Measured]) -> None:
    """Measure the untrained editor, or the LoRA that it starts with, unless that is done."""
    policies = trainer.editor.policies
    if not start.rows:
        with policies.using(START if START in policies.weights else "reference"):
            start.append([asdict(_measure(grid, trainer, items, start.path.parent / "edits", 0))])


def _measure(grid: Grid, trainer: Trainer, items: EditDataset, folder: Path, step: int) -> Measured:
    """Edit and measure the items with the active weights."""
    settings = EvalSettings(weights=f"step_{step:06d}", steps=grid.eval_steps, edits_per_item=grid.edits)
    oracle = toy_oracle if trainer.config.data.kind == "toy" else None
    rows = measure_edits(trainer.editor, trainer.judge, items, out=folder, settings=settings, oracle=oracle)
    oracles = {name: _oracles(rows, key) for name, key in ORACLES.items()}
    steps = [row for row in _steps(trainer.config) if row["step"] <= step]
    alarms = {alarm.name: first for first, _, alarm in sounded(steps, trainer.config.optim.grad_clip)}
    judge = [row.judge for row in rows]
    return Measured(step, _images(trainer.config, steps), judge, **oracles, alarms=alarms)


def _oracles(rows: Sequence[EditRow], key: str) -> list[float]:
    return [row.oracle[key] for row in rows if row.oracle]


def _steps(config: Config) -> list[StepRow]:
    """The rows of the steps that a run has made."""
    path = config.out / METRICS
    return read_lines(path) if path.exists() else []


def _images(config: Config, steps: Sequence[StepRow]) -> int:
    """Edits that these steps have made: of all groups, dropped ones too."""
    return (config.rollout.group_size + (config.rollout.scouts or 0)) * sum(map(groups_made, steps))


def _toy_items(grid: Grid, config: Config) -> ToyDataset:
    """Toy items that the run never draws."""
    seed = config.data.seed + 1 if grid.split == config.data.split else 0
    return ToyDataset(grid.split, grid.items, seed, config.data.level)


@contextmanager
def _taken(folder: Path) -> Iterator[bool]:
    """Hold a run; whether no other process holds it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK))
            free = True
        except UserError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            free = False
        yield free
