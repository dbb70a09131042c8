"""The commands `editr1 toy sample|build|verify`. They import what they need on call, so that --help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from editr1.terminal import open_console, show_table

TILE = 160
Level = Annotated[str, typer.Option(help="Level: small or full.")]


def sample(
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("toy.png"),
    count: Annotated[int, typer.Option(min=1, help="Number of items.")] = 18,
    split: Annotated[str, typer.Option(help="Split: sft, rl or heldout.")] = "sft",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the items.")] = 0,
    level: Level = "small",
) -> None:
    """Draw items of the toy world, source beside target, into one picture."""
    from PIL import Image, ImageDraw

    from editr1.data.pictures import png
    from editr1.files import write_file
    from editr1.toy.scene import draw, to_image
    from editr1.toy.world import ToyDataset

    dataset = ToyDataset(cast(Any, split), count, seed, cast(Any, level))  # it checks both
    columns = min(3, count)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (2 * TILE + 24), rows * (TILE + 44)), "white")
    pen = ImageDraw.Draw(sheet)
    for index in range(count):
        item = dataset.item(index)
        x, y = index % columns * (2 * TILE + 24) + 8, index // columns * (TILE + 44) + 8
        for place, scene in enumerate((item.scene, item.edit.target)):
            picture = to_image(draw(scene)).resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(picture, (x + place * (TILE + 4), y))
        pen.text((x, y + TILE + 4), f"[{item.edit.task}] {item.edit.instruction}"[:58], fill="black")
    write_file(out, png(sheet))
    typer.echo(out)


def build(
    out: Annotated[Path, typer.Option(help="Folder for the models; a stopped training goes on.")] = Path("build/toy"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
    level: Level = "small",
) -> None:
    """Train the toy editors and the judge from scratch, in hours on a CPU."""
    import torch

    from editr1.files import make_folder
    from editr1.toy_models.recipe import train_all

    make_folder(out)
    torch.set_flush_denormal(True)  # tiny numbers in an untrained model slow a CPU down
    try:
        train_all(out, seed=seed, level=cast(Any, level))
    finally:
        torch.set_flush_denormal(False)  # a setting of the whole process
    typer.echo(out)


def verify(
    editor: Annotated[Path | None, typer.Option(help="Folder of the editor; the shipped one by default.")] = None,
    judge: Annotated[Path | None, typer.Option(help="Folder of the judge; the shipped one by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the toy editor and judge from their weights."""
    from editr1.evaluation.progress import progress
    from editr1.toy.assets import toy_path
    from editr1.toy_models import verify as verification

    folders = editor or toy_path("qwen-image-edit"), judge or toy_path("judge")
    with progress(open_console(stderr=True), "measured", verification.ITEMS) as done:
        figures = verification.verify(*folders, on_item=done)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        _print(figures)


def _print(figures: dict[str, dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for part, values in figures.items():
        table = Table("task", *(name for name in values if name != "by_task"), title=part)
        table.add_row("all", *(str(value) for name, value in values.items() if name != "by_task"))
        by_task = values.get("by_task", {})
        assert isinstance(by_task, dict)
        for task, row in by_task.items():
            table.add_row(task, *(str(value) for value in row.values()))
        show_table(Console(highlight=False), table)
