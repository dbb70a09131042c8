"""The whole loop on the embedded editor and judge: measure, train, measure again, show.

Everything that is done stays in the folder of the run, so the same command goes on where it was stopped: finished items
of an evaluation and finished training steps are not done again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from editr1.config.loading import load_config
from editr1.data.samples import EditDataset
from editr1.editors.open import open_config_editor
from editr1.errors import UserError
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits
from editr1.evaluation.heldout.rows import EditRow, move_aside
from editr1.evaluation.paired import summarise
from editr1.evaluation.progress import progress
from editr1.files import write_file
from editr1.judges.open import open_config_judge
from editr1.report.run import write_report
from editr1.report.text import number, signed
from editr1.toy.oracle import score
from editr1.toy.world import ToyDataset, item_from_key
from editr1.training.group import Group
from editr1.training.open import open_dataset
from editr1.training.run_files import AFTER, BEFORE, RESULTS
from editr1.training.trainer import Trainer

HELD_OUT = 144  # instructions, as many of each task
PRESETS = {"qwen-image-edit": "toy", "flux-kontext": "toy_flux_kontext"}
EVAL_STEPS = 10  # Euler steps of an edit when it is measured


def oracle_of(group: Group) -> dict[str, list[float]]:
    """Oracle scores of a group's edits, for the log; training itself never reads them."""
    item = item_from_key(group.sample.key)
    return {"oracle": [score(item, image).score for image in group.rollout.images]}


def run_demo(out: Path, seed: int = 0, minutes: float | None = None, editor: str = "qwen-image-edit") -> None:
    """Load the shipped editor and judge, and show what training does; goes on where the same command was stopped.

    The measured items and their noise are the same for all seeds. `minutes` limits the training, without the measuring;
    None trains all steps of the preset.
    """
    if editor not in PRESETS:
        raise UserError(f"--editor {editor}: there is no such toy editor; there are {', '.join(PRESETS)}")
    console = Console(highlight=False)
    try:
        config = load_config(PRESETS[editor], [f"seed={seed}", f"out={out}"])
        console.print("[bold]1/5[/] Loading the toy editor and the toy judge that come with editr1 ...")
        trainer = Trainer(
            config, open_config_editor(config), open_config_judge(config), open_dataset(config.data), watch=oracle_of
        )
        show(trainer, ToyDataset("heldout", HELD_OUT, level=config.data.level), minutes, console)
    except KeyboardInterrupt:
        limit = "" if minutes is None else f" --minutes {minutes:g}"
        again = f"editr1 demo --out {out} --seed {seed} --editor {editor}{limit}"
        console.print(f"Stopped; nothing that was finished is lost. Go on with: {again}", markup=False, soft_wrap=True)
        raise


def show(trainer: Trainer, heldout: EditDataset, minutes: float | None, console: Console) -> dict[str, Any]:
    """Measure, train, measure, report; returns the content of results.json."""
    editor, out, steps = trainer.editor, trainer.out, trainer.config.steps
    items = f"{len(heldout)} instructions held out from training"
    console.print(f"[bold]2/5[/] Measuring the editor as it is, on {items} ...")
    with editor.policies.using("reference"):
        before = _measure(trainer, heldout, BEFORE, "base", console)
    limit = "" if minutes is None else f", at most {minutes:g} minutes"
    console.print(f"[bold]3/5[/] Training it by reinforcement from the judge's scores: {steps} steps{limit} ...")
    checkpoint = trainer.train(max_seconds=None if minutes is None else 60 * minutes)
    console.print("[bold]4/5[/] Measuring again: same instructions, same noise, trained weights ...")
    with trainer.ema.swap(), editor.policies.using("default"):
        after = _measure(trainer, heldout, AFTER, checkpoint.name, console)
    results = summarise(before, after, trainer.config.seed, trainer.seconds)
    write_file(out / RESULTS, json.dumps(results, indent=1).encode())
    console.print("[bold]5/5[/] Writing the report ...", table(results), verdict(results), sep="\n")
    paths = {"Report": write_report(out), "Figures": out / RESULTS, "Weights": checkpoint / "ema"}
    for name, path in paths.items():
        console.print(f"{name + ':':9}{path}", markup=False, soft_wrap=True)
    return results


def table(results: dict[str, Any]) -> Table:
    """Held-out results by task, oracle and judge, before and after."""
    grid = Table(title=f"{results['items']} held-out instructions, scores in [0, 1]", title_justify="left")
    grid.add_column("task")
    for name in ("oracle", "judge"):
        for column in (f"{name} before", "after", "change \\[95%]"):
            grid.add_column(column, justify="right")
    for task, entry in results["by_task"].items():
        grid.add_row(task, *_cells(entry["oracle"]), *_cells(entry["judge"]))
    grid.add_section()
    grid.add_row("all", *_cells(results["oracle"]), *_cells(results["judge"]), style="bold")
    return grid


def verdict(results: dict[str, Any]) -> str:
    """The outcome in one sentence, which says so where there is none."""
    oracle = results["oracle"]
    low, high = oracle["ci95"]
    word = "rose" if low > 0 else "fell" if high < 0 else "did not clearly change"
    figures = f"{number(oracle['before'])} before, {number(oracle['after'])} after"
    return f"The oracle, which training never saw, {word}: {figures} ({results['train_seconds']:.0f} s of training)."


def _measure(trainer: Trainer, heldout: EditDataset, name: str, weights: str, console: Console) -> list[EditRow]:
    """Evaluate the active weights into the folder `name` of the run, with a progress bar."""
    settings = EvalSettings(weights=weights, steps=EVAL_STEPS)
    if (old := move_aside(trainer.out / name, weights)) is not None:
        console.print(f"The weights have moved on; what was measured before is now in {old}.", soft_wrap=True)
    with progress(console, "instructions", len(heldout)) as done:
        folder = trainer.out / name
        return measure_edits(trainer.editor, trainer.judge, heldout, out=folder, settings=settings, on_items=done)


def _cells(figures: dict[str, Any]) -> tuple[str, str, str]:
    interval = f" \\[{signed(figures['ci95'][0])}, {signed(figures['ci95'][1])}]" if figures["ci95"] else ""
    return number(figures["before"]), number(figures["after"]), signed(figures["delta"]) + interval
