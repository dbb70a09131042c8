"""The benchmarks that `editr1 eval` runs: a benchmark is one file, with one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its import takes seconds, which `editr1 --help` need not wait for
    from editr1.evaluation.benchmarks.base import Benchmark


@dataclass(frozen=True)
class Entry:
    """A benchmark by name.

    Attributes:
        module: its file in this folder.
        kind: its class; the arguments are the folder of the data, the limit and `--judge`.
        about: help of its command.
    """

    module: str
    kind: str
    about: str

    def opener(self, data: Path, limit: int | None, judge: str) -> Callable[[], Benchmark]:
        """What opens the benchmark, in any process."""
        module = import_module(f"editr1.evaluation.benchmarks.{self.module}")
        return partial(getattr(module, self.kind), data, limit, judge)


BENCHMARKS: Mapping[str, Entry] = {
    "imgedit": Entry(
        "imgedit",
        "ImgEdit",
        "ImgEdit-Bench, basic suite: basic_edit.json, the images, and prompts.json if you have it.",
    ),
    "gedit": Entry(
        "gedit",
        "GEdit",
        "GEdit-Bench, both languages: parquet files or a saved dataset, and vie_prompts.py if you have it.",
    ),
}
