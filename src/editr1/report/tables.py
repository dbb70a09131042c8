"""The tables of a benchmark for people: grids as papers print them, in Markdown, LaTeX and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from editr1.evaluation.benchmarks.lines import OVERALL
from editr1.evaluation.benchmarks.outside import ceilings_of
from editr1.evaluation.benchmarks.published import Published, rows_in
from editr1.evaluation.benchmarks.results import Result
from editr1.files import write_file
from editr1.preservation.measure import NAMES
from editr1.report.text import MISSING, number

SCORE = "scored by"
CEILING_WORDS = "the VAE's ceiling"
"""The line of what a source keeps outside of the masks after a round trip through the editor's VAE."""
Grid = tuple[str, list[str], list[list[str]]]  # title, column names, lines


def grids(results: Mapping[str, Result], papers: Published | None = None) -> list[Grid]:
    """Tables of each subset as papers print them: a column per type, a line per score of each editor.

    Where a benchmark has several scores, a table of its overall scores comes first.

    Args:
        results: Results by name, all of one benchmark.
        papers: Published rows; they come before the results.
    """
    first = next(iter(results.values()))
    tables: list[Grid] = []
    for subset in first.tables:
        title, printed = first.title(subset), rows_in(papers, subset)
        names = list(dict.fromkeys(line.name for r in results.values() for line in r.tables.get(subset, ())))
        columns = [name for name in names if name != OVERALL] + [OVERALL]
        lines = [line for name, result in results.items() for line in _lines(name, result, subset, columns)]
        if len(own_metrics(first)) > 1:
            tables.append((f"{title}: overall", ["editor", *first.metrics], overall_lines(results, papers, subset)))
        else:
            (metric,) = own_metrics(first)
            above = {name: [row.get((metric, column)) for column in columns] for name, row in printed.items()}
            lines = [[name, metric, *map(number, cells)] for name, cells in above.items()] + lines
        tables.append((title, ["editor", SCORE, *columns], lines))
    return tables


def own_metrics(result: Result) -> list[str]:
    """The scores of a benchmark's own rule, without what was measured outside of masks."""
    return [metric for metric in result.metrics if metric not in NAMES]


def overall_lines(results: Mapping[str, Result], papers: Published | None, subset: str) -> list[list[str]]:
    """A line per editor with all its overall scores, and one with its ceilings; published editors come first."""
    metrics = next(iter(results.values())).metrics
    printed = {name: [row.get((m, OVERALL)) for m in metrics] for name, row in rows_in(papers, subset).items()}
    own: dict[str, list[float | None]] = {}
    for name, result in results.items():
        own[name] = [result.means(subset, metric).get(OVERALL) for metric in metrics]
        if ceilings := _ceilings(result, subset):
            own[f"{name}: {CEILING_WORDS}"] = [ceilings.get(metric, {}).get(OVERALL) for metric in metrics]
    return [[name, *map(number, values)] for rows in (printed, own) for name, values in rows.items()]


def text_columns(columns: Sequence[str]) -> int:
    """How many columns of a grid hold words; the columns after them hold numbers."""
    return 2 if SCORE in columns else 1


def write_tables(results: Mapping[str, Result], path: Path, papers: Published | None = None, notes: str = "") -> None:
    """Write the grids as `path`.md, followed by the notes, and as `path`.tex."""
    tables = grids(results, papers)
    write_file(path.with_suffix(".md"), ("\n".join(markdown(*table) for table in tables) + notes).encode())
    write_file(path.with_suffix(".tex"), "\n".join(latex(*table) for table in tables).encode())


def markdown(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    words = text_columns(columns)
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    return f"**{title}**\n\n" + row(columns) + row(rule) + "".join(map(row, lines))


def latex(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A LaTeX tabular; its rows can be copied into a paper's table."""
    rows = "".join(" & ".join(map(_latex_text, cells)) + " \\\\\n" for cells in lines)
    head = " & ".join(map(_latex_text, columns))
    form = "l" * text_columns(columns) + "r" * (len(columns) - text_columns(columns))
    return f"% {title}\n\\begin{{tabular}}{{{form}}}\n\\hline\n{head} \\\\\n\\hline\n{rows}\\hline\n\\end{{tabular}}\n"


def terminal_tables(result: Result) -> list[Table]:
    """The tables of a result for a terminal of 80 columns: a line per type."""
    return [_terminal_table(result, subset) for subset in result.tables]


def _terminal_table(result: Result, subset: str) -> Table:
    lines = result.tables[subset]
    table = Table(title=result.title(subset), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    careful = any(line.careful is not None for line in lines)
    for column in ("type", "items", "dropped", *result.metrics, *(["careful"] if careful else [])):
        table.add_column(column, justify="left" if column == "type" else "right", no_wrap=True)
    for line in lines:
        if line.name == OVERALL:
            table.add_section()
        values = [line.means[metric] for metric in result.metrics] + ([line.careful] if careful else [])
        style = "bold" if line.name == OVERALL else None
        table.add_row(line.name, str(line.items), str(line.dropped), *map(number, values), style=style)
    if ceilings := _ceilings(result, subset):
        values = [ceilings.get(metric, {}).get(OVERALL) for metric in result.metrics]
        table.add_row(CEILING_WORDS, "", "", *("" if v is None else number(v) for v in values), style="dim")
    return table


def _lines(name: str, result: Result, subset: str, columns: Sequence[str]) -> list[list[str]]:
    """A line per score of a result, its ceiling below it; the careful reader's scores if an item was dropped."""
    table = {line.name: line for line in result.tables.get(subset, ())}
    values, ceilings = {}, _ceilings(result, subset)
    for metric in result.metrics:
        values[metric] = [table[c].means[metric] if c in table else None for c in columns]
        if metric in ceilings:
            values[f"{metric}, ceiling"] = [ceilings[metric].get(c) for c in columns]
    if table and any(line.dropped for line in table.values()):
        values["careful"] = [table[c].careful if c in table else None for c in columns]
    return [[name, metric, *map(number, cells)] for metric, cells in values.items()]


def _ceilings(result: Result, subset: str) -> dict[str, dict[str, float | None]]:
    """The ceilings of what is kept outside of masks, if the result has any."""
    names = [metric for metric in result.metrics if metric in NAMES]
    ceilings = ceilings_of(result, names, subset)
    return {name: means for name, means in ceilings.items() if means[OVERALL] is not None}


def _latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", MISSING: "--"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
