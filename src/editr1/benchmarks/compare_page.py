"""A comparison as one self-contained page, and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from editr1.benchmarks.charts import TONES, bars, radar
from editr1.benchmarks.compare import Change, Comparison
from editr1.benchmarks.page import templates, thumbnail
from editr1.benchmarks.results import OVERALL, TITLES, Result, Row, cell_text, grids
from editr1.checkpoint import write_file
from editr1.report.chart import interval_bar
from editr1.report.page import signed

SHOWN = 8  # wins, and as many losses


def write_compare_page(found: Comparison, out: Path) -> Path:
    """Write OUT/compare.html and return its path."""
    first = next(iter(found.results.values()))
    papers = {found.published.subset: found.published.rows} if found.published else None
    page = (
        templates()
        .get_template("compare.html.j2")
        .render(
            title=TITLES[first.benchmark],
            first=next(iter(found.results)),
            found=found,
            tones={name: TONES[i % len(TONES)] for i, name in enumerate(found.results)},
            charts=list(charts(found)),
            grids=grids(found.results, papers),
            changes=[(name, list(change_tables(found, name))) for name in found.changes],
            gallery=[(name, list(wins_and_losses(found, name))) for name in found.changes],
            metric=first.metrics[0],
        )
    )
    path = out / "compare.html"
    write_file(path, page.encode())
    return path


def charts(found: Comparison) -> Iterator[tuple[str, Markup, Markup]]:
    """For each table: its title, bars of the overall, a radar of the types."""
    first = next(iter(found.results.values()))
    metric = first.metrics[0]
    tones = {name: TONES[i % len(TONES)] for i, name in enumerate(found.results)}
    for subset in first.tables:
        own = {name: _means(result, subset, metric) for name, result in found.results.items()}
        overall = {name: value for name, means in own.items() if (value := means.get(OVERALL)) is not None}
        if found.published and found.published.subset == subset:
            papers = {name: row.get((metric, OVERALL)) for name, row in found.published.rows.items()}
            overall |= {name: value for name, value in papers.items() if value is not None and name not in overall}
        types = [line.name for line in first.tables[subset] if line.name != OVERALL]
        lines = {name: [means.get(task) for task in types] for name, means in own.items()}
        title = subset if len(first.tables) > 1 else "Overall"
        yield title, bars(f"{title}: {metric}", overall, tones, first.best), radar(title, types, lines, first.best)


def _means(result: Result, subset: str, metric: str) -> dict[str, float | None]:
    return {line.name: line.means[metric] for line in result.tables.get(subset, ())}


def change_tables(found: Comparison, name: str) -> Iterator[dict[str, Any]]:
    """For each subset and score that changed: the lines with their intervals drawn against zero."""
    for subset, metrics in found.changes[name].items():
        for metric, lines in metrics.items():
            reach = max((abs(end) for change in lines.values() for end in change.ci95), default=1.0)
            drawn = [(line, c, interval_bar(c.delta, c.ci95, reach)) for line, c in lines.items()]
            title = metric if len(found.changes[name]) == 1 else f"{subset}: {metric}"
            yield {"title": title, "lines": drawn}


def wins_and_losses(found: Comparison, name: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The items that gained and lost most, with source and both edits."""
    base = next(iter(found.results))
    first, other = found.results[base], found.results[name]
    metric = first.metrics[0]
    theirs = {row.key: row for row in other.items}
    changes: list[tuple[float, Row, Row]] = []
    for row in first.items:
        there = theirs.get(row.key)
        before, after = row.scores[metric], there.scores[metric] if there else None
        if there is not None and before is not None and after is not None and after != before:
            changes.append((after - before, row, there))
    ranked = sorted(changes, key=lambda change: change[0])
    for title, shown in (
        ("Largest gains", [c for c in reversed(ranked) if c[0] > 0]),
        ("Largest losses", [c for c in ranked if c[0] < 0]),
    ):
        folders = found.folders[base], found.folders[name]
        yield title, [_card(change, folders, (base, name), metric) for change in shown[:SHOWN]]


def _card(
    change: tuple[float, Row, Row], folders: tuple[Path, Path], names: tuple[str, str], metric: str
) -> dict[str, Any]:
    delta, before, after = change
    return {
        "row": before,
        "delta": delta,
        "scores": [(name, row.scores[metric]) for name, row in zip(names, (before, after), strict=True)],
        "pictures": [
            ("source", thumbnail(folders[0], before.source)),
            (names[0], thumbnail(folders[0], before.edit)),
            (names[1], thumbnail(folders[1], after.edit)),
        ],
    }


def compare_tables(found: Comparison) -> Iterator[Table]:
    """The overall of all rows, and each result's changes by type, for a terminal of 80 columns."""
    first = next(iter(found.results.values()))
    metric = first.metrics[0]
    for subset in first.tables:
        title = TITLES[first.benchmark] + (f", {subset}" if len(first.tables) > 1 else "")
        yield _overall_table(found, subset, title, first.metrics)
        for name, subsets in found.changes.items():
            if subsets[subset][metric]:
                yield _change_table(f"{title}: {metric}, {name}", subsets[subset][metric])


def _overall_table(found: Comparison, subset: str, title: str, metrics: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("overall")
    for metric in metrics:
        table.add_column(metric, justify="right")
    if found.published and found.published.subset == subset:
        for name, row in found.published.rows.items():
            table.add_row(Text(name), *(cell_text(row.get((m, OVERALL))) for m in metrics), style="dim")
    for name, result in found.results.items():
        table.add_row(Text(name), *(cell_text(_means(result, subset, m).get(OVERALL)) for m in metrics), style="bold")
    return table


def _change_table(title: str, lines: Mapping[str, Change]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("type", "items", "before", "after", "change [95%]", "better", "worse"):
        table.add_column(Text(column), justify="left" if column == "type" else "right", no_wrap=True)
    for line, c in lines.items():
        if line == OVERALL:
            table.add_section()
        change = Text(f"{signed(c.delta)} [{signed(c.ci95[0])}, {signed(c.ci95[1])}]")
        means, counts = (cell_text(c.before), cell_text(c.after)), (str(c.better), str(c.worse))
        style = "bold" if line == OVERALL else None
        table.add_row(line, str(c.items), *means, change, *counts, style=style)
    return table
