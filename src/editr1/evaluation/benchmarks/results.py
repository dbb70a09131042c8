"""The result of a benchmark: `results.json` with everything, and the same tables as CSV, Markdown and LaTeX rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from rich.box import SIMPLE_HEAD
from rich.table import Table

from editr1 import __version__
from editr1.errors import UserError, first_problem
from editr1.evaluation.benchmarks.base import ItemResult, Tables
from editr1.evaluation.benchmarks.lines import OVERALL
from editr1.evaluation.benchmarks.published import Published, rows_in
from editr1.files import write_file

FILE = "results.json"
SCORE = "scored by"
ROUNDING = 0.0051  # of official scores, to two decimals
TITLES = {"imgedit": "ImgEdit-Bench", "gedit": "GEdit-Bench", "toy": "Toy world, held out"}


@dataclass(frozen=True)
class Row:
    """One item of a result; pictures are named relative to the result's folder, "" where there is none."""

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


@dataclass(frozen=True)
class Result:
    """One run of a benchmark.

    Attributes:
        benchmark: "imgedit", "gedit" or "toy".
        metrics: names of the scores, the primary one first.
        best: the best score.
        overall: whether the overall is the mean of the types' means, or of the items.
        made_with: how the edits were made and judged.
        tables: by subset; the last line of each is "overall".
        items: all of them.
        version: of editr1.
    """

    benchmark: str
    metrics: tuple[str, ...]
    best: float
    overall: Literal["types", "items"]
    made_with: dict[str, Any]
    tables: Tables
    items: tuple[Row, ...]
    version: str = __version__

    def title(self, subset: str) -> str:
        """Of one of its tables."""
        return TITLES[self.benchmark] + (f", {subset}" if len(self.tables) > 1 else "")

    def means(self, subset: str, metric: str) -> dict[str, float | None]:
        """By line of one of its tables."""
        return {line.name: line.means[metric] for line in self.tables.get(subset, ())}


def rows_of(results: Sequence[ItemResult], out: Path) -> tuple[Row, ...]:
    """The items as they are kept."""
    return tuple(
        Row(
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
    """Write results.json, results.csv, results.md and results.tex."""
    name = out.resolve().name
    write_file(out / FILE, (json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n").encode())
    write_file(out / "results.csv", csv_text(result).encode())
    tables = grids({name: result})
    write_file(out / "results.md", "\n".join(markdown(*table) for table in tables).encode())
    write_file(out / "results.tex", "\n".join(latex(*table) for table in tables).encode())


def read_result(path: Path) -> Result:
    """The result in a folder or a file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = path / FILE if path.is_dir() else path
    try:
        result: Result = TypeAdapter(Result).validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: no {FILE} there ({error.strerror}); give the folder of a finished eval") from error
    except ValidationError as error:
        raise UserError(f"{file}: not the result of a benchmark: {first_problem(error)}") from error
    numbers = [row.scores for row in result.items] + [line.means for lines in result.tables.values() for line in lines]
    if not result.tables or not result.items or any(set(result.metrics) - set(found) for found in numbers):
        raise UserError(f"{file}: damaged: a table, an item or a score is missing; run the eval again, it goes on")
    return result


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


def misread(result: Result) -> list[Row]:
    """The items that the official rule drops, or reads otherwise than a careful reader does."""
    metric = result.metrics[0]
    return [
        row
        for row in result.items
        if (score := row.scores[metric]) is None or (row.careful is not None and abs(row.careful - score) > ROUNDING)
    ]


Grid = tuple[str, list[str], list[list[str]]]  # title, names of the columns, lines


def grids(results: Mapping[str, Result], papers: Published | None = None) -> list[Grid]:
    """Tables for each subset as papers print them: a column a type, and where there are several scores one a score.

    Args:
        results: by name, all of one benchmark.
        papers: their rows stand above.
    """
    first = next(iter(results.values()))
    made: list[Grid] = []
    for subset in first.tables:
        title, printed = first.title(subset), rows_in(papers, subset)
        names = list(dict.fromkeys(line.name for r in results.values() for line in r.tables.get(subset, ())))
        columns = [name for name in names if name != OVERALL] + [OVERALL]
        lines = [line for name, result in results.items() for line in _lines(name, result, subset, columns)]
        if len(first.metrics) > 1:
            made.append((f"{title}: overall", ["editor", *first.metrics], overall_lines(results, papers, subset)))
        else:
            (metric,) = first.metrics
            above = {name: [row.get((metric, column)) for column in columns] for name, row in printed.items()}
            lines = [[name, metric, *map(cell_text, cells)] for name, cells in above.items()] + lines
        made.append((title, ["editor", SCORE, *columns], lines))
    return made


def overall_lines(results: Mapping[str, Result], papers: Published | None, subset: str) -> list[list[str]]:
    """One line an editor, published ones first, its scores beside each other."""
    metrics = next(iter(results.values())).metrics
    printed = {name: [row.get((m, OVERALL)) for m in metrics] for name, row in rows_in(papers, subset).items()}
    own = {name: [result.means(subset, m).get(OVERALL) for m in metrics] for name, result in results.items()}
    return [[name, *map(cell_text, values)] for rows in (printed, own) for name, values in rows.items()]


def texts(columns: Sequence[str]) -> int:
    """How many columns of a grid hold words; the others hold numbers."""
    return 2 if SCORE in columns else 1


def _lines(name: str, result: Result, subset: str, columns: Sequence[str]) -> list[list[str]]:
    """A result's lines: its scores, and the careful reader's where that differs."""
    table = {line.name: line for line in result.tables.get(subset, ())}
    values = {metric: [table[c].means[metric] if c in table else None for c in columns] for metric in result.metrics}
    if table and any(line.dropped for line in table.values()):
        values["careful"] = [table[c].careful if c in table else None for c in columns]
    return [[name, metric, *map(cell_text, cells)] for metric, cells in values.items()]


def cell_text(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "–" if value is None else f"{value:.2f}"


def markdown(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    rule = ["---"] * texts(columns) + ["---:"] * (len(columns) - texts(columns))
    return f"**{title}**\n\n" + row(columns) + row(rule) + "".join(map(row, lines))


def latex(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A LaTeX tabular; its rows can be copied into a paper's table."""
    rows = "".join(" & ".join(map(_latex_text, cells)) + " \\\\\n" for cells in lines)
    head = " & ".join(map(_latex_text, columns))
    form = "l" * texts(columns) + "r" * (len(columns) - texts(columns))
    return f"% {title}\n\\begin{{tabular}}{{{form}}}\n\\hline\n{head} \\\\\n\\hline\n{rows}\\hline\n\\end{{tabular}}\n"


def _latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def terminal_tables(result: Result) -> list[Table]:
    """The tables for a terminal of 80 columns: a line a type."""
    made = []
    for subset, lines in result.tables.items():
        table = Table(title=result.title(subset), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        careful = any(line.careful is not None for line in lines)
        for column in ("type", "items", "dropped", *result.metrics, *(["careful"] if careful else [])):
            table.add_column(column, justify="left" if column == "type" else "right", no_wrap=True)
        for line in lines:
            if line.name == OVERALL:
                table.add_section()
            values = [line.means[metric] for metric in result.metrics] + ([line.careful] if careful else [])
            style = "bold" if line.name == OVERALL else None
            table.add_row(line.name, str(line.items), str(line.dropped), *map(cell_text, values), style=style)
        made.append(table)
    return made
