"""The commands `editr1 data ...`. They import what they need on call, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.judge import JUDGE_HELP
from editr1.errors import UserError
from editr1.terminal import open_console

ModelOption = Annotated[str, typer.Option("--model", help=JUDGE_HELP)]


def check(
    folder: Annotated[Path, typer.Argument(help="A folder with pictures and a data.jsonl.")],
) -> None:
    """Tell everything that is wrong with a dataset, one line for each fault."""
    from editr1.data.samples import JsonlDataset

    faults: list[str] = []
    JsonlDataset(folder, faults=faults)
    for fault in faults:
        typer.echo(fault)
    if faults:
        raise typer.Exit(1)


def build(
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures.")],
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="Folder of the data; a stopped build goes on.")],
    boxes: Annotated[Path | None, typer.Option(help="Objects in the pictures: COCO or simple JSON.")] = None,
    detector: Annotated[Path | None, typer.Option(help="Folder of a transformers object detector.")] = None,
    tasks: Annotated[str, typer.Option(help="Task types, separated by commas; all by default.")] = "",
    per_picture: Annotated[int, typer.Option(min=1, help="Items per picture, each of another type.")] = 3,
    smallest: Annotated[float, typer.Option(min=0, max=1, help="Least share of the picture of an object.")] = 0.01,
    largest: Annotated[float, typer.Option(min=0, max=1, help="Greatest share of the picture of an object.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
) -> None:
    """Make training data of your own pictures: a multimodal model writes instructions and checks their sense."""
    from editr1.evaluation.progress import progress
    from editr1.recipe.asking import open_writer
    from editr1.recipe.building import BoxSource
    from editr1.recipe.building import build as build_data
    from editr1.recipe.library import picture_names
    from editr1.recipe.words import TASKS
    from editr1.recipe.writing import Recipe

    chosen = tuple(dict.fromkeys(filter(None, tasks.split(",")))) or tuple(TASKS)
    if unknown := [task for task in chosen if task not in TASKS]:
        raise UserError(f"--tasks {unknown[0]}: there are {', '.join(TASKS)}")
    if smallest >= largest:
        raise UserError(f"--smallest {smallest:g} must be below --largest {largest:g}")
    if boxes is not None and detector is not None:
        raise UserError("--boxes and --detector: give one of them, or none to ask the model for boxes")
    recipe = Recipe(seed=seed, tasks=chosen, per_picture=per_picture, sizes=(smallest, largest))
    source = BoxSource.of_detector(detector) if detector is not None else BoxSource(boxes)
    with progress(open_console(stderr=True), "pictures", len(picture_names(pictures))) as done:
        counts = build_data(pictures, out, open_writer(model), recipe, source, done)
    for name, amount in (*counts["tasks"].items(), ("items", counts["items"])):
        typer.echo(f"{amount:6d} {name}")
    typer.echo(out)


def suggest(
    folder: Annotated[Path, typer.Argument(help="A folder with pictures and a data.jsonl.")],
    model: ModelOption,
    out: Annotated[Path | None, typer.Option(help="File to write; by default data.suggested.jsonl beside it.")] = None,
) -> None:
    """Fill in missing requirements and tasks of a dataset by a multimodal model, into a new file."""
    from editr1.evaluation.progress import progress
    from editr1.recipe.asking import open_writer
    from editr1.recipe.suggesting import fill, open_gaps

    gaps = open_gaps(folder, out or folder / "data.suggested.jsonl")
    with progress(open_console(stderr=True), "items", len(gaps.missing)) as done:
        counts = fill(gaps, open_writer(model), done)
    for name, amount in counts.items():
        typer.echo(f"{amount:6d} {name}")
    typer.echo(gaps.out)
