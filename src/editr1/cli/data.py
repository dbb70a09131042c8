"""The commands `editr1 data ...`. They import what they need on call, so that --help is quick."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from editr1.cli.judge import JUDGE_HELP
from editr1.cli.settings import AsJson
from editr1.errors import UserError, tell
from editr1.terminal import open_console

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with a data.jsonl and its pictures.")]
ModelOption = Annotated[str, typer.Option("--model", help=JUDGE_HELP)]
Root = Annotated[Path | None, typer.Option(help="A folder that may hold pictures too, as data.root.")]


def check(
    folder: Folder,
    root: Root = None,
    editor: Annotated[
        str | None, typer.Option(help="Editor (or the YAML of a run) whose limit of tokens instructions must keep.")
    ] = None,
    heldout: Annotated[
        Path | None, typer.Option(help="Folder of held-out data; a picture of it may not be a source here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell everything that is wrong with a dataset, one line for each fault; exit code 1 if there is any."""
    from editr1.data.checking.check import DataCheck, heldout_sources
    from editr1.data.forms import open_stored

    if root is not None and not root.is_dir():
        raise UserError(f"--root {root}: there is no such folder")
    _refuse_other_forms(folder)
    held = None if heldout is None else heldout_sources(open_stored(heldout, root))
    data_check = DataCheck(folder, root, None if editor is None else _long_texts(editor), held)
    if as_json:
        _print_json(data_check.run(), data_check.counts)
    else:
        for fault in data_check.run():
            typer.echo(f"line {fault.line}: {fault.kind}: {fault.message}")
        for line in data_check.counts.summary():
            typer.echo(line)
    if data_check.counts.kinds:
        raise typer.Exit(1)


def preview(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("preview.html"),
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Items at most; a random choice, always the same.")] = 60,
    root: Root = None,
) -> None:
    """Write a contact sheet of a dataset: one page with its pictures, instructions, requirements and tasks."""
    from editr1.report.data_preview import write_preview

    _refuse_other_forms(folder)
    typer.echo(write_preview(folder, out, limit, root))


def _refuse_other_forms(folder: Path) -> None:
    """Refuse a folder without lines, and say what makes them."""
    from editr1.data.samples import file_of

    if not file_of(folder)[0].exists():
        raise UserError(
            f"{folder} has no data.jsonl; write one, or make one of parquet files, shards, a saved dataset or votes: "
            "editr1 data convert"
        )


def _long_texts(editor: str) -> Any:
    """What finds the instructions that are too long for an editor, if its limit is known."""
    from editr1.cli.evaluate import editor_config
    from editr1.editors.text_limit import long_texts

    find = long_texts(editor_config(editor, None))
    if find is None:
        tell(f"warning: no limit of tokens is known of {editor}; instructions have the plain bound of bytes alone")
    return find


def _print_json(faults: Iterable[Any], counts: Any) -> None:
    """One object, written as faults are found: there may be millions."""
    start = '{"faults": ['
    for fault in faults:
        typer.echo(f"{start}\n{json.dumps(asdict(fault))}", nl=False)
        start = ","
    counts_and_notes = json.dumps({**vars(counts), "notes": counts.notes()})
    typer.echo(f"{start.strip(',')}\n],\n{counts_and_notes[1:]}")


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
    count, writer = len(picture_names(pictures)), open_writer(model)
    with progress(open_console(stderr=True), "pictures", count) as done:
        counts = build_data(pictures, out, writer, recipe, source, done)
    for name, amount in (*counts["tasks"].items(), ("items", counts["items"])):
        typer.echo(f"{amount:6d} {name}")
    if not counts["items"]:
        tell(f"no item came of it; {out / 'counts.json'} says why")
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
    writer = open_writer(model)
    with progress(open_console(stderr=True), "items", len(gaps.missing)) as done:
        counts = fill(gaps, writer, done)
    for name, amount in counts.items():
        typer.echo(f"{amount:6d} {name}")
    typer.echo(gaps.out)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder with a train_metadata.jsonl, a parquet file or shard (.tar), a folder or pattern of them, "
            "a dataset that save_to_disk wrote, or votes of the arena."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; empty, or not there yet.")],
    root: Root = None,
) -> None:
    """Write a dataset as a folder with pictures and a data.jsonl; the pictures keep their bytes."""
    from editr1.cli.check import refuse
    from editr1.data import convert as writing
    from editr1.data.forms import kind_of, open_stored
    from editr1.evaluation.progress import progress

    writing.refuse_full(out)
    faults: list[str] = []
    dataset = open_stored(source, root, faults, kind=kind_of(source))
    refuse(faults)
    console = open_console(stderr=True)
    with progress(console, "items", len(dataset)) as advance:
        pictures = writing.convert(dataset, out, faults, advance)
    refuse(faults)
    typer.echo(f"{len(dataset)} items with {pictures} pictures in {out}")
