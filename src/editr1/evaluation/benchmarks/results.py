"""The result of a benchmark: `results.json` with everything, and its tables as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from editr1 import __version__
from editr1.errors import UserError, first_problem, printable, read_json
from editr1.evaluation.benchmarks.base import ItemResult, Tables
from editr1.files import write_file

FILE = "results.json"
LARGEST = 1e9  # of scores
ROUNDING = 0.0051  # official scores have two decimals
TITLES = {
    "imgedit": "ImgEdit-Bench",
    "imgedit-uge": "ImgEdit-Bench, UGE suite",
    "gedit": "GEdit-Bench",
    "toy": "Toy world, held out",
    "data": "Own data",
}


@dataclass(frozen=True)
class ItemRow:
    """One item of a result; paths of pictures are relative to the result's folder, or "" without a picture.

    `mask` is the digest of the mask that it was measured by; None without one, or in a result of an earlier version.
    """

    key: str
    task: str
    subsets: tuple[str, ...]
    instruction: str
    source: str
    edit: str
    scores: dict[str, float | None]
    careful: float | None = None
    answers: dict[str, str | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    mask: str | None = None


@dataclass(frozen=True)
class Result:
    """One run of a benchmark; the fields are those of `Benchmark` where they share a name.

    Attributes:
        overall: whether the overall is the mean over the types' means, or over the items.
        made_with: how the edits were made and judged.
    """

    benchmark: str
    metrics: tuple[str, ...]
    best: float
    overall: Literal["types", "items"]
    made_with: dict[str, Any]
    tables: Tables
    items: tuple[ItemRow, ...]
    version: str = __version__

    def title(self, subset: str) -> str:
        return TITLES[self.benchmark] + (f", {subset}" if len(self.tables) > 1 else "")

    def means(self, subset: str, metric: str) -> dict[str, float | None]:
        """Means by line of one table."""
        return {line.name: line.means[metric] for line in self.tables.get(subset, ())}


def rows_of(results: Sequence[ItemResult], out: Path) -> tuple[ItemRow, ...]:
    """The items' rows."""
    return tuple(
        ItemRow(
            key=r.item.key,
            task=r.item.task,
            subsets=r.item.subsets,
            instruction=r.item.instruction,
            source=r.item.source_file if (out / r.item.source_file).is_file() else "",
            edit=r.item.edit_file if (out / r.item.edit_file).is_file() else "",
            scores=dict(r.scores),
            careful=r.careful,
            answers=dict(r.answers),
            reasons=dict(r.reasons),
        )
        for r in results
    )


def write_result(result: Result, out: Path) -> None:
    """Write results.json and results.csv."""
    write_file(out / FILE, (json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n").encode())
    write_file(out / "results.csv", csv_text(result).encode())


def read_result(path: Path) -> Result:
    """The result in a folder or a file; a UserError if there is none, or it is damaged."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path}: no {FILE} there; give the folder of a finished eval")
    try:
        result: Result = TypeAdapter(Result).validate_python(read_json(file))
    except ValidationError as error:
        raise UserError(f"{file}: not the result of a benchmark: {first_problem(error)}") from error
    if fault := _fault_of(result):
        raise UserError(f"{file}: damaged: {fault}; run the eval again, it goes on")
    return result


def _fault_of(result: Result) -> str | None:
    """What a result lacks, or has too much of."""
    lines = [line for table in result.tables.values() for line in table]
    scored = [row.scores for row in result.items] + [line.means for line in lines]
    careful = [row.careful for row in result.items] + [line.careful for line in lines]
    numbers = careful + [value for each in scored for value in each.values()]
    if result.benchmark not in TITLES:
        return f"benchmark {printable(result.benchmark)!r} is none of {', '.join(TITLES)}"
    parts = result.tables, result.items, result.metrics, *result.tables.values()
    if not all(parts) or any(set(result.metrics) - set(each) for each in scored):
        return "a table, an item or a score is missing"
    if not 0 < result.best < LARGEST or any(value is not None and not abs(value) < LARGEST for value in numbers):
        return "a score is no number, or too large"
    if any(line.items < 0 or line.dropped < 0 for line in lines):
        return "a count is negative"
    if len({row.key for row in result.items}) < len(result.items):
        return "an item is there twice"
    return None


def csv_text(result: Result) -> str:
    """One line for each line of each table."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["subset", "type", "items", "dropped", *result.metrics, "careful"])
    for subset, lines in result.tables.items():
        for line in lines:
            means = [line.means[metric] for metric in result.metrics]
            writer.writerow([subset, line.name, line.items, line.dropped, *means, line.careful])
    return text.getvalue()


def edits_line(result: Result) -> str:
    """How the edits were made, as a line for people, e.g. "Edits: editor E, lora L, lora scale 2.0, steps 28"."""
    names = ("editor", "lora", "lora_scale", "steps", "scheduler", "guidance", "pixels", "seed", "best_of")
    values = {name: result.made_with.get(name) for name in names}
    return "Edits: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in values.items() if v is not None)


def misread(result: Result) -> list[ItemRow]:
    """The items that the official rule drops, or reads otherwise than a careful reader does."""
    metric = result.metrics[0]
    return [
        row
        for row in result.items
        if (score := row.scores[metric]) is None or (row.careful is not None and abs(row.careful - score) > ROUNDING)
    ]
