"""A training run that is measured on held-out items: before training, every N steps, and after it.

Training and evaluation do not know each other; they meet here. Training goes in legs that end where an evaluation is
due, each with a checkpoint: an evaluation that is stopped goes on with the very weights, and the weights of the run are
those of a run without evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from editr1.config.data import EvaluationConfig
from editr1.config.settings import Config
from editr1.data.samples import EditDataset
from editr1.editors.policies import START
from editr1.errors import UserError, collect, tell
from editr1.evaluation.best import find_best
from editr1.evaluation.heldout.measure import EvalSettings, Oracle, measure_edits, toy_oracle
from editr1.evaluation.heldout.outside import Masks, masks_of, measure_again, wanted_of
from editr1.evaluation.heldout.rows import FILE as ROWS
from editr1.evaluation.heldout.rows import EditRow, RowStore, move_aside, read_rows
from editr1.evaluation.paired import FEW, change, same_edits, summarise
from editr1.evaluation.progress import progress
from editr1.files import read_lines, write_file
from editr1.report.best import best_words
from editr1.report.run import write_report
from editr1.report.text import number, signed
from editr1.terminal import open_console, show_table
from editr1.training.best import read_best, write_best
from editr1.training.checkpoint import complete, fixed_settings, place, resolve, step_of
from editr1.training.datasets import open_datasets
from editr1.training.distributed import ALONE, World
from editr1.training.interrupts import Interrupts
from editr1.training.open import open_trainer
from editr1.training.preserving import Measure, open_measure
from editr1.training.run_files import AFTER, BEFORE, BETWEEN, CHECKPOINTS, RESULTS
from editr1.training.trainer import Trainer

BASE = "base"  # name of the weights before training
OF_THE_START = ("editor.", "judge.", "rewards.", "memory.", "adapter.init")  # settings that matter before training


@dataclass(frozen=True)
class HeldOut:
    """What a run is measured on.

    Attributes:
        items: Items that training never draws.
        settings: How they are edited, and how often.
        oracle: Measures toy items; None for a user's own.
        pinned: Whether rows keep the run's settings, so that rows of others are refused.
    """

    items: EditDataset
    settings: EvaluationConfig
    oracle: Oracle | None = None
    pinned: bool = True

    @cached_property
    def masks(self) -> Masks:
        """Those of the items, which are read for it once, not for every evaluation."""
        return masks_of(self.items)


def train_config(config: Config, world: World = ALONE, data: EditDataset | None = None) -> str:
    """Train as `config` says, with its evaluation if it has one; returns the folder of the last checkpoint.

    `data` are the items that the config names, if they are open.
    """
    training, items = open_datasets(config, data)  # before the weights, which take longer
    if items is not None:
        refuse_other_edits(config, items)
    trainer = open_trainer(config, training, world)
    if items is None or config.evaluation is None:
        return str(trainer.train())
    toy = config.data.kind == "toy" and config.evaluation.data is None
    heldout = HeldOut(items, config.evaluation, toy_oracle if toy else None)
    console = open_console(stderr=True, speaks=world.is_main)
    try:
        with Interrupts():
            return train_measured(trainer, heldout, console)
    except KeyboardInterrupt:
        say(console, f"Nothing that was finished is lost: {trainer.out} holds it, the same command goes on.")
        raise


def refuse_other_edits(config: Config, items: EditDataset) -> None:
    """A UserError if the run's folder holds held-out edits before training of other items or settings."""
    folder = config.out / BEFORE
    if config.evaluation is not None and folder.is_dir():
        settings = _eval_settings(config.evaluation, BASE, _settings_of_the_start(resolve(config)))
        RowStore(folder, settings.head([items[index].key for index in range(len(items))]), writes=False)


def train_measured(trainer: Trainer, heldout: HeldOut, console: Console) -> str:
    """Measure and train in turn, then report; returns the folder of the last checkpoint."""
    every, steps = heldout.settings.every, last_step(trainer)
    say(console, f"Measuring the editor as it is on {len(heldout.items)} held-out items ...")
    _move_aside(trainer, AFTER, f"step_{steps:06d}")  # of a run that ended earlier: a point of the curve now
    before = measure_base(trainer, heldout, console)
    measure_between(trainer, heldout, console)
    if not _has_best(trainer):  # a run of an older version, or one whose best checkpoint is damaged
        mark_best(trainer, before, _rows_between(trainer.out, until=trainer.step + 1), console)
    for leg in legs(trainer.step, steps, every):
        checkpoint = trainer.train(until=leg)
        step = trainer.step  # that of the leg, or an earlier one after which no item is left to draw
        say(console, f"Measuring again after step {step}: same items, same noise, averaged weights ...")
        folder = AFTER if step == last_step(trainer) else f"{BETWEEN}/step_{step:06d}"
        after = measure_average(trainer, heldout, folder, console)
        results = write_results(trainer, before, after, folder)
        mark_best(trainer, before, {**_rows_between(trainer.out, until=step), step: after}, console)
        if folder == AFTER:
            break
    show_table(console, table(results))
    console.print(verdict(results))
    if kept := kept_outside(results):
        say(console, kept)
    if trainer.world.is_main:
        say(console, f"Report: {write_report(trainer.out)}")
    return str(checkpoint)


def last_step(trainer: Trainer) -> int:
    """The step with which a run ends, as far as that is known."""
    return trainer.step if trainer.collector.all_solved else max(trainer.config.steps, trainer.step)


def legs(done: int, steps: int, every: int | None) -> Iterator[int]:
    """The steps after which a run is measured, from the last one that is done."""
    yield from (step for step in range(every or steps, steps, every or steps) if step >= done)
    yield steps


def measure_base(trainer: Trainer, heldout: HeldOut, console: Console) -> list[EditRow]:
    """Measure what training starts from: the editor as it is loaded, or with the LoRA of `adapter.init`."""
    pins = _settings_of_the_start(trainer.config)
    policies = trainer.editor.policies
    with policies.using(START if START in policies.weights else "reference"):
        return _measure(trainer, heldout, BEFORE, BASE, pins, console)


def measure_between(trainer: Trainer, heldout: HeldOut, console: Console) -> None:
    """Measure what the edits of earlier evaluations keep outside of the masks, if a session did not ask for it."""
    folders = [*_folders_between(trainer.out).values()]
    if not folders or (measure := _outside(trainer)) is None:  # which may open a vision model
        return
    wanted = wanted_of(heldout.masks, measure)
    for folder in folders:
        head = read_lines(folder / ROWS)[0]
        store = RowStore(folder, head, writes=trainer.world.is_main)
        if items := measure_again(store, heldout.items, wanted, measure, trainer.world):
            say(console, f"Measured what the edits of {items} items in {folder} keep outside of their masks.")


def measure_average(trainer: Trainer, heldout: HeldOut, name: str, console: Console) -> list[EditRow]:
    """Measure the averaged weights of the step that the run has reached, into the folder `name`."""
    pins = fixed_settings(trainer.config)
    with trainer.ema.swap(), trainer.editor.policies.using("default"):
        return _measure(trainer, heldout, name, f"step_{trainer.step:06d}", pins, console)


def write_results(
    trainer: Trainer, before: Sequence[EditRow], after: Sequence[EditRow], folder: str = AFTER
) -> dict[str, Any]:
    """Write results.json after an evaluation into `folder`, with the curve up to there; its content."""
    seed, step = trainer.config.seed, trainer.step
    rows = {**_rows_between(trainer.out, until=step), step: after}
    curve = [{"step": at, **change(before, rows[at], seed)} for at in sorted(rows) if same_edits(before, rows[at])]
    made = {"step": step, "after": folder, "guidance": trainer.editor.guidance}
    results = {**summarise(before, after, seed, trainer.seconds), **made, "curve": curve}
    if trainer.world.is_main:
        write_file(trainer.out / RESULTS, json.dumps(results, indent=1).encode())
    return results


def mark_best(
    trainer: Trainer, before: Sequence[EditRow], measured: Mapping[int, Sequence[EditRow]], console: Console
) -> None:
    """Name the best of the measured steps whose checkpoints are there; nothing changes if none has rewards.

    It is a function of the rows, so a run that was stopped and goes on names the same. The main rank does it.
    """
    if not trainer.world.is_main:
        return
    root = trainer.out / CHECKPOINTS
    whole = {step_of(folder) for folder in complete(root)}
    best = find_best(before, {step: rows for step, rows in measured.items() if step in whole}, trainer.config.seed)
    if best is not None:
        write_best(root, best)
        say(console, f"Best checkpoint: {best_words(best)}.")
    elif measured:
        say(console, "Best checkpoint: as before, since no item has a reward for all of its edits.")


def _has_best(trainer: Trainer) -> bool:
    """Whether the run names a checkpoint that is whole."""
    faults, best, root = list[str](), None, trainer.out / CHECKPOINTS
    with collect(faults):
        best = read_best(root)
    for fault in faults if trainer.world.is_main else []:
        tell(f"warning: {fault}")
    return best is not None and place(root, best.step) in complete(root)


def _rows_between(out: Path, until: int) -> dict[int, list[EditRow]]:
    """The rows of the evaluations before step `until`, by step."""
    return {step: read_rows(folder) for step, folder in _folders_between(out).items() if step < until}


def _folders_between(out: Path) -> dict[int, Path]:
    return {int(path.name[5:]): path for path in sorted((out / BETWEEN).glob("step_*")) if path.name[5:].isdigit()}


def table(results: dict[str, Any]) -> Table:
    """Held-out results by task, before and after: the judge, beside the oracle if there is one."""
    names = [name for name in ("oracle", "judge") if name in results]
    scale = "" if results.get("guidance") is None else f", guidance {results['guidance']:g}"
    title = f"{results['items']} held-out instructions{scale}, scores in [0, 1]"
    grid = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    grid.add_column("task")
    for name in names:
        for column in (f"{name} before", "after"):
            grid.add_column(column, justify="right")
        grid.add_column("change \\[95%]", justify="right", no_wrap=True)
    for task, entry in results["by_task"].items():
        grid.add_row(task, *(cell for name in names for cell in _cells(entry[name], entry["n"])))
    grid.add_section()
    grid.add_row("all", *(cell for name in names for cell in _cells(results[name], results["items"])), style="bold")
    return grid


def verdict(results: dict[str, Any]) -> str:
    """The outcome in one sentence, which says so where there is none."""
    name = "oracle" if "oracle" in results else "judge"
    low, high = results[name]["ci95"] or (0, 0)
    word = "rose" if low > 0 else "fell" if high < 0 else "did not clearly change"
    if results.get("items", FEW) < FEW:
        word = "was measured on too few items to tell"
    figures = f"{number(results[name]['before'])} before, {number(results[name]['after'])} after"
    who = "The oracle, which training never saw," if name == "oracle" else "The judge's score of held-out items"
    return f"{who} {word}: {figures} ({results['train_seconds']:.0f} s of training)."


def kept_outside(results: dict[str, Any]) -> str:
    """What held-out edits keep outside of the masks, in a sentence; "" if it was not measured."""
    if not (psnr := results.get("psnr")) or psnr["ci95"] is None:
        return ""
    change = f"{signed(psnr['delta'])} [{signed(psnr['ci95'][0])}, {signed(psnr['ci95'][1])}]"
    words = f"PSNR outside of the masks: {number(psnr['before'])} dB before, {number(psnr['after'])} after ({change})"
    if psnr.get("ceiling") is None:
        return f"{words}."
    return f"{words}; the round trip of the VAE, which is the ceiling, has {number(psnr['ceiling'])}."


def say(console: Console, text: str) -> None:
    """One line as it is."""
    console.print(text, markup=False, soft_wrap=True)


def _measure(
    trainer: Trainer, heldout: HeldOut, name: str, weights: str, pins: dict[str, Any], console: Console
) -> list[EditRow]:
    """Evaluate the active weights into the folder `name` of the run, with a progress bar.

    Raises:
        UserError: No edit has a reward, or the folder holds rows of other settings.
    """
    folder, settings = trainer.out / name, _eval_settings(heldout.settings, weights, pins if heldout.pinned else {})
    if (old := _move_aside(trainer, name, weights)) is not None:
        say(console, f"The weights have moved on; what was measured before is now in {old}.")
    with progress(console, "instructions", len(heldout.items)) as done:
        rows = measure_edits(
            trainer.editor,
            trainer.judge,
            heldout.items,
            out=folder,
            settings=settings,
            oracle=heldout.oracle,
            outside=_outside(trainer),
            masks=heldout.masks,
            on_items=done,
            world=trainer.world,
        )
    if all(row.judge is None for row in rows):
        raise UserError(
            f"the judge gave none of the {len(rows)} edits in {folder} a reward: {rows[0].reason}; mend the judge, "
            "then run the same command again"
        )
    return rows


def _outside(trainer: Trainer) -> Measure | None:
    """What measures how held-out edits keep what is outside of masks; None if the run does not ask for it."""
    kept = trainer.config.preservation
    return None if kept is None else open_measure(trainer.editor, kept.features)


def _eval_settings(own: EvaluationConfig, weights: str, pins: dict[str, Any]) -> EvalSettings:
    """How held-out items are edited under the weights of this name; `pins` are settings of the run that matter."""
    return EvalSettings(
        weights=weights, steps=own.steps, scheduler=own.scheduler, edits_per_item=own.edits, made_with=pins
    )


def _settings_of_the_start(config: Config) -> dict[str, Any]:
    """The settings of a run on which the edits before training depend."""
    return {key: value for key, value in fixed_settings(config).items() if key.startswith(OF_THE_START)}


def _move_aside(trainer: Trainer, name: str, weights: str) -> Path | None:
    """`move_aside` by the main rank, before any other looks into the folder."""
    old = move_aside(trainer.out / name, weights) if trainer.world.is_main else None
    trainer.world.meet("the folder of an evaluation")
    return old


def _cells(figures: dict[str, Any], items: int) -> tuple[str, str, str]:
    interval = f"{signed(figures['ci95'][0])}, {signed(figures['ci95'][1])}" if figures["ci95"] else ""
    words = f" \\[{interval if items >= FEW else 'few items'}]" if interval else ""
    return number(figures["before"]), number(figures["after"]), signed(figures["delta"]) + words
