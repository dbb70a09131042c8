"""The command `editr1 ablate`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from editr1.errors import UserError

What = Literal["train", "time", "report"]


def ablate(
    grid: Annotated[Path, typer.Argument(help="A YAML file with the variants.")],
    out: Annotated[Path, typer.Option(help="Folder of all runs; what is there is not done again.")],
    what: Annotated[
        What, typer.Option(help="Train and measure the runs; time their steps, on an idle machine; or report alone.")
    ] = "train",
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each variant, in place of the grid's.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A variant, in place of all; may be repeated.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs that are trained side by side.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Timed steps of each variant.")] = 12,
    beside: Annotated[bool, typer.Option(hidden=True, help="Leave the report to the process that asked.")] = False,
) -> None:
    """Train variants of a run with several seeds, measure them alike, and report their gains with intervals.

    The same command goes on where it was stopped; several may share the folder. Gains by step do not depend on how busy
    the machine is, seconds do: so steps are timed apart.
    """
    from editr1.ablation.grid import config_of, read_grid
    from editr1.ablation.page import write_ablation
    from editr1.ablation.runs import train_all
    from editr1.ablation.timing import time_all

    settings = read_grid(grid)
    settings = settings if seeds is None else settings.model_copy(update={"seeds": seeds})
    variants = only or list(settings.variants)
    for variant in variants:
        if variant not in settings.variants:
            raise UserError(f"--only {variant}: {grid} has no such variant; it has {', '.join(settings.variants)}")
    for variant in settings.variants:
        config_of(settings, variant, 0, out)  # all that is wrong with a setting, before the first run
    if what == "train" and jobs > 1:
        only_words = [word for variant in variants for word in ("--only", variant)]
        own = [str(grid), "--out", str(out), "--seeds", str(settings.seeds), *only_words, "--beside"]
        train_side_by_side([sys.executable, "-m", "editr1", "ablate", *own], jobs)
    elif what == "train":
        for line in train_all(settings, out, variants):
            typer.echo(line)
    elif what == "time":
        for line in time_all(settings, out, variants, rounds):
            typer.echo(line)
    if not beside:
        typer.echo(write_ablation(settings, out))


def train_side_by_side(command: Sequence[str], jobs: int) -> None:
    """The command in several processes, of which each takes runs that no other has taken.

    Raises:
        UserError: One failed; it has said why.
    """
    processes = [subprocess.Popen(command) for _ in range(jobs)]
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.wait()  # Ctrl-C reaches them too, and they save their runs
    if any(codes):
        raise UserError(f"{sum(map(bool, codes))} of {jobs} processes failed, as told above")
