"""A progress bar with the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(console: Console, name: str, total: int) -> Iterator[partial[None]]:
    """Yields a callback for every item, or with a number for several; no bar if `total` is 0."""
    columns = (TextColumn(name), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=total == 0) as bar:
        yield partial(bar.advance, bar.add_task("", total=total))
