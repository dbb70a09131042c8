"""The commands `editr1 toy sample|build|verify`."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from PIL import Image, ImageDraw

from editr1.config.settings import Level, Split
from editr1.toy.scene import draw, to_image
from editr1.toy.world import ToyDataset

TILE = 160


def sample(out: Path, count: int = 18, split: Split = "sft", seed: int = 0, level: Level = "small") -> None:
    """Draw `count` items, source beside target, with their instructions, into one PNG."""
    dataset = ToyDataset(split, count, seed, level)
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
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    typer.echo(out)


def build(out: Path, seed: int = 0, level: Level = "small") -> None:
    """Train VAEs, editors and judge from scratch; the same command resumes a stopped training."""
    import torch

    from editr1.toy_models.recipe import train_all

    torch.set_flush_denormal(True)  # tiny numbers in an untrained model slow a CPU down
    train_all(out, seed=seed, level=level)
    typer.echo(out)


def verify(editor: Path | None = None, judge: Path | None = None, as_json: bool = False) -> None:
    """Measure the shipped models, or other ones, and print the figures."""
    from rich.progress import track

    from editr1.toy.assets import toy_path
    from editr1.toy_models import verify as verification

    items = iter(track(range(verification.ITEMS), "Measuring", disable=as_json))

    def count() -> None:
        next(items, None)

    figures = verification.verify(editor or toy_path("qwen-image-edit"), judge or toy_path("judge"), on_item=count)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    _print(figures)


def _print(figures: dict[str, dict[str, object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for part, values in figures.items():
        table = Table("task", *(name for name in values if name != "by_task"), title=part)
        table.add_row("all", *(str(value) for name, value in values.items() if name != "by_task"))
        by_task = values.get("by_task", {})
        assert isinstance(by_task, dict)
        for task, row in by_task.items():
            table.add_row(task, *(str(value) for value in row.values()))
        console.print(table)
