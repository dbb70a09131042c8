"""What an evaluation is doing: in a terminal a bar with the time left, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET = 30.0  # seconds between two lines where there is no terminal


@contextmanager
def progress(
    console: Console, name: str, total: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[..., None]]:
    """Yields a callback for every item, or with a number for several; nothing is shown if `total` is 0."""
    columns = (TextColumn(name), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    spoken = clock()
    with Progress(*columns, console=console, disable=total == 0) as bar:
        task = bar.add_task("", total=total)

        def advance(count: int = 1) -> None:
            nonlocal spoken
            bar.advance(task, count)
            if total and not console.is_terminal and clock() - spoken >= QUIET:
                spoken = clock()
                console.print(f"{name} {bar.tasks[task].completed:.0f}/{total}", highlight=False)

        yield advance
