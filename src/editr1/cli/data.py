"""The commands `editr1 data ...`. They import what they need on call, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
