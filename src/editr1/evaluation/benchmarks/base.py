"""What a benchmark is: items to edit, questions about each edit, a rule that reads the answers, and a table.

The run (`run.py`) makes the edits and asks the judge; a benchmark opens no model. All of its files are in one folder
OUT, in the layout of the official scripts.
"""

from __future__ import annotations

import ast
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import yaml
from PIL.Image import Image

from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import Ask

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""What a key must look like to become the name of a file."""


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        key: unique in the benchmark.
        task: the official name of its type.
        instruction: the edit in words.
        source: opens the source as the judge sees it, RGB; raises UserError if it cannot be read.
        edit_file: path of the edit, below OUT.
        source_file: path of the copy of the source, below OUT.
        subsets: the tables that it counts in, e.g. ("en full", "en intersection").
        original: opens the larger image that the editor gets; None if it gets `source`.
    """

    key: str
    task: str
    instruction: str
    source: Callable[[], Image]
    edit_file: str
    source_file: str
    subsets: tuple[str, ...] = ("all",)
    original: Callable[[], Image] | None = None

    def sample(self, source: Image) -> EditSample:
        """What the editor is asked, of an opened source."""
        return EditSample(self.key, source, self.instruction, task=self.task)


@dataclass(frozen=True)
class Reading:
    """What an answer says.

    Attributes:
        numbers: the official rule's reading; () if it drops the answer.
        careful: a careful reader's; () if nobody could tell. Both are equal if both can be read.
    """

    numbers: tuple[float, ...] = ()
    careful: tuple[float, ...] = ()


@dataclass(frozen=True)
class Question:
    """One question about one edit.

    Attributes:
        ask: what the judge is asked, temperature 0.
        criteria: the official criteria in order, each with the criterion of a judge's own template that replaces it if
            the judge cannot write the official answer.
        low: lowest number of a criterion.
        high: highest number of a criterion.
        write: writes numbers (one per criterion, low to high) as an answer in the official form.
    """

    ask: Ask
    criteria: Mapping[str, str]
    low: int
    high: int
    write: Callable[[Sequence[float]], str]


@dataclass(frozen=True)
class ItemResult:
    """One item's answers and scores.

    Attributes:
        item: the item.
        answers: raw text by question; None without an answer.
        reasons: why there is no answer, by question.
        scores: by metric, in the benchmark's own unit; None if the official rule gives none.
        careful: a careful reader's primary metric; None if nobody can tell.
    """

    item: Item
    answers: Mapping[str, str | None]
    reasons: Mapping[str, str]
    scores: Mapping[str, float | None]
    careful: float | None

    @property
    def task(self) -> str:
        return self.item.task


@dataclass(frozen=True)
class Line:
    """One line of a table: a task type or the overall.

    Attributes:
        name: the task type, or "overall".
        items: number of items, scored or not.
        dropped: number of items without a primary score (in the toy world: without a judge's score).
        means: by metric; None without items.
        careful: mean of the careful scores.
    """

    name: str
    items: int
    dropped: int
    means: Mapping[str, float | None]
    careful: float | None


Tables = dict[str, tuple[Line, ...]]
"""By subset; the last line of each is "overall"."""


def digest_of(items: Sequence[Item]) -> str:
    """What tells two sets of items apart."""
    content = json.dumps([(item.key, item.task, item.instruction) for item in items])
    return f"{len(items)} items, {zlib.crc32(content.encode()):08x}"


def refuse_shared_files(items: Sequence[Item], folder: Path) -> None:
    """A UserError if two pictures, of official names, would be one file; file systems may not tell cases apart."""
    names = Counter(name.casefold() for item in items for name in (item.edit_file, item.source_file))
    if shared := next((name for name, count in names.items() if count > 1), None):
        raise UserError(f"{folder}: two pictures would share the file {shared}; give each item a key of its own")


def packaged(name: str) -> Any:
    """The content of a YAML file of this folder."""
    return yaml.safe_load((resources.files(__package__) / name).read_text(encoding="utf-8"))


def constants_of(path: Path) -> dict[str, str]:
    """The string constants at the top of a Python file, such as its prompts; the file is not run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read the prompts in {path}: {error}") from error
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


class Benchmark(Protocol):
    """A benchmark on disk.

    Attributes:
        name: "imgedit", "imgedit-uge", "gedit" or "toy".
        items: items to run, in official order; sources are opened only when needed.
        metrics: names of the scores, the primary one first.
        best: the best score of the primary metric, e.g. 5 or 10.
        digest: of all items, with or without a limit; edits belong to it.
        asks: names of its questions.
        criteria: criteria of a judge's own template that its questions name.
        prompts: "official" if the user's copy of the judge's prompts is used, else "own wording".
    """

    name: str
    items: Sequence[Item]
    metrics: Sequence[str]
    best: float
    digest: str
    asks: Sequence[str]
    criteria: Sequence[str] = ("instruction", "preservation", "quality")
    prompts: str

    def questions(self, item: Item, source: Image, edit: Image) -> dict[str, Question]:
        """The questions about one edit, by the names in `asks`; `read` must know the answer to each."""
        ...

    def read(self, item: Item, question: str, text: str) -> Reading:
        """What an answer says, by the official rule and by a careful reader."""
        ...

    def score(self, item: Item, answers: Mapping[str, str | None], reasons: Mapping[str, str]) -> ItemResult:
        """One item's scores from its raw answers."""
        ...

    def finish(self, results: Sequence[ItemResult], out: Path) -> Tables:
        """Write the official files into OUT, from raw answers alone, and make the tables."""
        ...
