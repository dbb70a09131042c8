"""What a benchmark is: items to edit, questions about each edit, a rule that reads the answers, and a table.

The run (`editr1.benchmarks.run`) makes the edits and asks; a benchmark opens no model and asks nobody. All of its files
lie in one folder OUT, in the layout of the official scripts.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL.Image import Image

from editr1.data.samples import EditSample
from editr1.judges.base import Ask

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What a key must look like to become the name of a file."""


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        key: unique in the benchmark.
        task: the official name of its type.
        instruction: what to do.
        source: opens the source as the judge sees it, RGB; raises UserError where it cannot be read.
        edit_file: where the edit belongs, below OUT.
        source_file: where a copy of the source belongs, below OUT.
        subsets: the tables that it counts in, e.g. ("en full", "en intersection").
        requirement: what a good edit must show, where the benchmark says it.
        original: opens the image that the editor gets, where it is not `source` but a larger one.
    """

    key: str
    task: str
    instruction: str
    source: Callable[[], Image]
    edit_file: str
    source_file: str
    subsets: tuple[str, ...] = ("all",)
    requirement: str = ""
    original: Callable[[], Image] | None = None

    def sample(self, source: Image) -> EditSample:
        """What the editor is asked, of an opened source."""
        return EditSample(self.key, source, self.instruction, self.requirement, self.task)


@dataclass(frozen=True)
class Reading:
    """What an answer says.

    Attributes:
        numbers: as the official rule reads them, () where it drops the answer.
        careful: as a careful reader would; () where nobody could tell. Equal to `numbers` where both can read.
    """

    numbers: tuple[float, ...] = ()
    careful: tuple[float, ...] = ()


@dataclass(frozen=True)
class Question:
    """One question about one edit.

    Attributes:
        ask: what the judge is asked, temperature 0.
        criteria: for a judge that cannot write the official answer: which criterion of its own template stands for each
            of the official ones, by name and in order.
        low: lowest number that a criterion is given.
        high: highest.
        write: numbers (one a criterion, low to high) as an answer in the official form.
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
        item: which.
        answers: raw text by question; None where the judge gave none.
        reasons: why there is no answer, by question.
        scores: by metric, in the benchmark's own unit; None where the official rule gives none.
        careful: the primary metric as a careful reader gives it; None where nobody can tell.
    """

    item: Item
    answers: Mapping[str, str | None]
    reasons: Mapping[str, str]
    scores: Mapping[str, float | None]
    careful: float | None

    @property
    def task(self) -> str:
        """The item's type."""
        return self.item.task


@dataclass(frozen=True)
class Line:
    """One line of a table: a task type or the overall.

    Attributes:
        name: the task type, or "overall".
        items: that count in it, scored or not.
        dropped: of these, how many have no primary score (of the toy world: none of the judge's).
        means: by metric; None where no item is left.
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


class Benchmark(Protocol):
    """A benchmark on disk.

    Attributes:
        name: "imgedit", "gedit" or "toy".
        items: all of it, in official order; sources are opened when asked for.
        metrics: names of the scores, the primary one first.
        best: the best score of the primary metric, e.g. 5 or 10.
        digest: of all of its items (not those of a limit alone): what edits were made for.
        asks: names of its questions.
        prompts: "official" where the user's copy of the judge's prompts is used, else "own wording".
    """

    @property
    def name(self) -> str: ...

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def metrics(self) -> Sequence[str]: ...

    @property
    def best(self) -> float: ...

    @property
    def digest(self) -> str: ...

    @property
    def asks(self) -> Sequence[str]: ...

    @property
    def prompts(self) -> str: ...

    def questions(self, item: Item, source: Image, edit: Image) -> dict[str, Question]:
        """What is asked about one edit, by the names in `asks`; for each, `read` must know the answer."""
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
