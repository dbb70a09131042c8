"""A comparison as one self-contained page, and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from editr1.evaluation.benchmarks.compare import Change, Comparison, paired
from editr1.evaluation.benchmarks.lines import OVERALL
from editr1.evaluation.benchmarks.published import rows_in
from editr1.evaluation.benchmarks.results import TITLES, Row, cell_text, grids, overall_lines
from editr1.files import write_file
from editr1.report.bars import bars, radar
from editr1.report.benchmark import templates, thumbnail
from editr1.report.run import signed
from editr1.report.svg import interval_bar

SHOWN = 8  # wins, and as many losses
TONES = ("quiet", "a", "b", "c")  # of the results in their order; the first is what the others are measured against


def write_compare_page(found: Comparison, out: Path) -> Path:
    """Write OUT/compare.html and return its path."""
    tones = {name: TONES[i % len(TONES)] for i, name in enumerate(found.results)}
    page = (
        templates()
        .get_template("comparison.html.j2")
        .render(
            title=TITLES[found.first.benchmark],
            found=found,
            tones=tones,
            charts=list(charts(found, tones)),
            grids=grids(found.results, found.published),
            changes=[(name, list(change_tables(found, name))) for name in found.changes],
            gallery=[(name, list(wins_and_losses(found, name))) for name in found.changes],
            metric=found.first.metrics[0],
        )
    )
    path = out / "compare.html"
    write_file(path, page.encode())
    return path


def charts(found: Comparison, tones: Mapping[str, str]) -> Iterator[tuple[str, Markup, Markup]]:
    """For each table: its title, bars of the overall, a radar of the types."""
    first = found.first
    metric = first.metrics[0]
    for subset in first.tables:
        own = {name: result.means(subset, metric) for name, result in found.results.items()}
        overall = {name: value for name, means in own.items() if (value := means.get(OVERALL)) is not None}
        printed = {name: row.get((metric, OVERALL)) for name, row in rows_in(found.published, subset).items()}
        overall |= {name: value for name, value in printed.items() if value is not None and name not in overall}
        types = [line.name for line in first.tables[subset] if line.name != OVERALL]
        lines = {name: [means.get(task) for task in types] for name, means in own.items()}
        title = subset if len(first.tables) > 1 else "Overall"
        yield (
            title,
            bars(f"{title}: {metric}", overall, tones, first.best),
            radar(title, types, lines, tones, first.best),
        )


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
    metric = found.first.metrics[0]
    theirs = {row.key: row for row in found.results[name].items}
    both = paired(found.first.items, theirs, metric)
    ranked = sorted(((after - before, row, other) for row, other, before, after in both), key=lambda change: change[0])
    for title, shown in (
        ("Largest gains", [c for c in reversed(ranked) if c[0] > 0]),
        ("Largest losses", [c for c in ranked if c[0] < 0]),
    ):
        folders = found.folders[found.base], found.folders[name]
        yield title, [_card(change, folders, (found.base, name), metric) for change in shown[:SHOWN]]


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
    metric = found.first.metrics[0]
    for subset in found.first.tables:
        title = found.first.title(subset)
        yield _overall_table(found, subset, title)
        for name, subsets in found.changes.items():
            if subsets[subset][metric]:
                yield _change_table(f"{title}: {metric}, {name}", subsets[subset][metric])


def _overall_table(found: Comparison, subset: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("overall")
    for metric in found.first.metrics:
        table.add_column(metric, justify="right")
    for name, *cells in overall_lines(found.results, found.published, subset):
        table.add_row(Text(name), *cells, style="bold" if name in found.results else "dim")
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
