"""The benchmarks that `editr1 eval` runs: a benchmark is one file, with one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from editr1.errors import UserError

if TYPE_CHECKING:  # its import takes seconds, which `editr1 --help` need not wait for
    from editr1.evaluation.benchmarks.base import Benchmark

BASIC = "basic"


@dataclass(frozen=True)
class Entry:
    """A benchmark by name.

    Attributes:
        module: its file in this folder.
        kind: its class; the arguments are the folder of the data, the limit and `--judge`.
        about: help of its command.
        suites: file and class of its further suites, by name.
    """

    module: str
    kind: str
    about: str
    suites: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def opener(self, data: Path, limit: int | None, judge: str, suite: str = BASIC) -> Callable[[], Benchmark]:
        """What opens a suite of the benchmark, in any process; a UserError if it has no such suite."""
        suites = {BASIC: (self.module, self.kind), **self.suites}
        if suite not in suites:
            raise UserError(f"--suite {suite}: eval {self.module} has {', '.join(suites)}")
        file, kind = suites[suite]
        return partial(getattr(import_module(f"editr1.evaluation.benchmarks.{file}"), kind), data, limit, judge)


BENCHMARKS: Mapping[str, Entry] = {
    "imgedit": Entry(
        "imgedit",
        "ImgEdit",
        "ImgEdit-Bench: basic_edit.json, the images, and prompts.json if you have it; --suite uge: UGE_edit.json.",
        {"uge": ("imgedit_uge", "ImgEditUGE")},
    ),
    "gedit": Entry(
        "gedit",
        "GEdit",
        "GEdit-Bench, both languages: parquet files or a saved dataset, and vie_prompts.py if you have it.",
    ),
}
