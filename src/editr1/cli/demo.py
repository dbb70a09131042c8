"""The whole loop on the embedded editor and judge: measure, train, measure again, show.

Everything that is done stays in the folder of the run, so the same command goes on where it was stopped: finished items
of an evaluation and finished training steps are not done again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from editr1.cli.measured import HeldOut, measure_average, measure_base, say, table, verdict, write_results
from editr1.config.data import EvaluationConfig
from editr1.config.loading import load_config
from editr1.data.samples import EditDataset
from editr1.editors.open import open_config_editor
from editr1.errors import UserError
from editr1.evaluation.heldout.measure import toy_oracle
from editr1.files import locked
from editr1.judges.open import open_config_judge
from editr1.report.run import write_report
from editr1.terminal import is_quiet, open_console, show_table
from editr1.toy.oracle import score
from editr1.toy.world import ToyDataset, item_from_key
from editr1.training.datasets import open_dataset
from editr1.training.distributed import ALONE, World
from editr1.training.group import Group
from editr1.training.preflight import check_out
from editr1.training.run_files import AFTER, LOCK, RESULTS
from editr1.training.trainer import Trainer

HELD_OUT = 144  # instructions, as many of each task
PRESETS = {"qwen-image-edit": "toy", "flux-kontext": "toy_flux_kontext"}
EVAL_STEPS = 10  # Euler steps of an edit when it is measured


def oracle_of(group: Group) -> dict[str, list[float]]:
    """Oracle scores of a group's edits, for the log; training itself never reads them."""
    item = item_from_key(group.sample.key)
    return {"oracle": [score(item, image).score for image in group.rollout.images]}


def run_demo(
    out: Path,
    seed: int = 0,
    minutes: float | None = None,
    editor: str = "qwen-image-edit",
    world: World = ALONE,
) -> None:
    """Load the shipped editor and judge, and show what training does; goes on where the same command was stopped.

    The measured items and their noise are the same for all seeds. `minutes` limits the training, without the measuring;
    None trains all steps of the preset.
    """
    if editor not in PRESETS:
        raise UserError(f"--editor {editor}: there is no such toy editor; there are {', '.join(PRESETS)}")
    console = open_console(speaks=world.is_main)
    try:
        config = load_config(PRESETS[editor], [f"seed={seed}", f"out={out}"])
        check_out(config.out, config)
        with locked(config.out / LOCK, world.is_main):
            console.print("[bold]1/5[/] Loading the toy editor and the toy judge that come with editr1 ...")
            parts = open_config_editor(config), open_config_judge(config), open_dataset(config.data)
            trainer = Trainer(config, *parts, watch=oracle_of, world=world)
            show(trainer, ToyDataset("heldout", HELD_OUT, level=config.data.level), minutes, console)
    except KeyboardInterrupt:
        limit = "" if minutes is None else f" --minutes {minutes:g}"
        again = f"editr1 demo --out {out} --seed {seed} --editor {editor}{limit}"
        say(console, f"Stopped; nothing that was finished is lost. Go on with: {again}")
        raise


def show(trainer: Trainer, heldout: EditDataset, minutes: float | None, console: Console) -> dict[str, Any]:
    """Measure, train, measure, report; returns the content of results.json."""
    settings = EvaluationConfig(split=len(heldout), steps=EVAL_STEPS)
    measured = HeldOut(heldout, settings, toy_oracle, pinned=False)  # one recipe, and older folders go on
    items = f"{len(heldout)} instructions held out from training"
    console.print(f"[bold]2/5[/] Measuring the editor as it is, on {items} ...")
    before = measure_base(trainer, measured, console)
    limit = "" if minutes is None else f", at most {minutes:g} minutes"
    steps = f"{trainer.config.steps} steps{limit}"
    console.print(f"[bold]3/5[/] Training it by reinforcement from the judge's scores: {steps} ...")
    checkpoint = trainer.train(max_seconds=None if minutes is None else 60 * minutes)
    console.print("[bold]4/5[/] Measuring again: same instructions, same noise, trained weights ...")
    results = write_results(trainer, before, measure_average(trainer, measured, AFTER, console))
    console.print("[bold]5/5[/] Writing the report ...")
    show_table(console, table(results))
    console.print(verdict(results))
    page = write_report(trainer.out) if trainer.world.is_main else None
    say(console, f"Figures: {trainer.out / RESULTS}")
    say(console, f"Weights: {checkpoint / 'ema'}")
    heard = open_console(speaks=trainer.world.is_main, always=True) if is_quiet() else console
    say(heard, f"Report:  {page}")
    return results
