"""The command `editr1 watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.judge import web_server


def watch(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, going on or finished.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8200,
) -> None:
    """Follow runs on a local page: curves over each other, alarms, time left, the latest edits with their rewards."""
    with web_server("watch"):
        from editr1.report.watch.server import watch as follow

    follow(runs, host=host, port=port)
