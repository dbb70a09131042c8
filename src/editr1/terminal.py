"""What people see in a terminal: how much is said, lines and tables whose words stay whole, bars where there is one.

The level of the logger "editr1" says how much: above INFO, only warnings and results. The command line sets it by
`loudness`; a program that imports editr1 sets it itself.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Column, Table

OURS = "editr1"
WIDEST = 100  # letters of a line of prose
UNLIMITED = 100_000  # letters of a line, to measure what would be shown


class _Lines(logging.Handler):
    """Writes to the error stream of the moment, so above a bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


class _Words(logging.Formatter):
    """What we tell as it is; else whose words they are, and what they are."""

    def format(self, record: logging.LogRecord) -> str:
        text, ours = super().format(record), record.name.split(".")[0] == OURS
        if ours and record.levelno == logging.INFO:
            return text
        return f"{OURS if ours else record.name}: {rank()}{record.levelname.lower()}: {text}"


def rank() -> str:
    """The rank that torchrun gives this process, as the start of a line; nothing if it is alone."""
    return "" if os.environ.get("WORLD_SIZE", "1") == "1" else f"rank {os.environ['RANK']}: "


@contextmanager
def loudness(level: int) -> Iterator[None]:
    """Inside, our messages of this level and above are told on the error stream, and warnings of libraries.

    Under DEBUG, libraries tell more too. Of several ranks of torchrun, the main one tells what is no warning; under
    DEBUG, all do.
    """
    root, ours, lines = logging.getLogger(), logging.getLogger(OURS), _Lines()
    before = root.level, ours.level
    lines.setFormatter(_Words())
    root.addHandler(lines)
    ours.setLevel(level if level == logging.DEBUG or is_main() else logging.WARNING)
    if level == logging.DEBUG:
        root.setLevel(logging.INFO)
        os.environ.update(DIFFUSERS_VERBOSITY="info", TRANSFORMERS_VERBOSITY="info")  # they read it when imported
    try:
        yield
    finally:
        root.removeHandler(lines)
        for logger, old in zip((root, ours), before, strict=True):
            logger.setLevel(old)


def is_quiet() -> bool:
    """Whether only warnings and results are told."""
    return logging.getLogger(OURS).level > logging.INFO


def is_main() -> bool:
    """Whether this process is alone or the main rank of torchrun, and no worker of another one."""
    return os.environ.get("RANK", "0") == "0" and multiprocessing.parent_process() is None


def open_console(*, stderr: bool = False, speaks: bool = True, always: bool = False) -> Console:
    """A console of the rank that `speaks`; what is told by a quiet command too needs one that is `always` heard."""
    return Console(stderr=stderr, highlight=False, quiet=not speaks or (is_quiet() and not always))


def announce(what: str, *libraries: Any) -> None:
    """Tell what takes a while, with the bars of these libraries (their modules of logging) in a terminal alone."""
    logging.getLogger(f"{OURS}.terminal").info("%s ...", what)
    bars = not is_quiet() and is_main() and sys.stderr.isatty()
    for library in libraries:
        (library.enable_progress_bar if bars else library.disable_progress_bar)()


def wrap(text: str, first: str, others: str) -> list[str]:
    """A text in lines as wide as the terminal, the first one and the others after these indents; words stay whole."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    wrapper = textwrap.TextWrapper(width, first, others, break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text)


def show_table(console: Console, table: Table) -> None:
    """Print a table with whole words; where they do not fit into the console's width, it is wider."""
    options = console.options.update(width=UNLIMITED)
    whole = Measurement.get(console, options, table).maximum
    if whole > console.width:
        sizes = [_sizes(console, options, column) for column in table.columns]
        borders = whole - sum(most for _, most in sizes)
        spare = console.width - borders - sum(least for least, _ in sizes)
        table.width = max(console.width, console.width - spare)
        for column, (least, most) in zip(table.columns, sizes, strict=True):
            column.width = min(most, least + max(spare, 0))
            spare -= column.width - least
    console.print(table, crop=False)


def _sizes(console: Console, options: ConsoleOptions, column: Column) -> tuple[int, int]:
    """Letters of the longest word of a column, and of its longest cell; both of the latter if it may not be wrapped."""
    sizes = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    most = max(size.maximum for size in sizes)
    return (most if column.no_wrap else max(size.minimum for size in sizes)), most
