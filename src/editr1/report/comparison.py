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
from editr1.evaluation.benchmarks.results import TITLES, ItemRow
from editr1.report.environment import write_page
from editr1.report.outside import NOTE as CEILING_NOTE
from editr1.report.svg import interval_bar, radar, ranked_bars
from editr1.report.tables import grids, overall_lines, write_tables
from editr1.report.text import number, signed
from editr1.report.thumbnails import thumbnail

GALLERY_CHANGES = 8  # wins, and as many losses
TONES = ("quiet", "a", "b", "c")  # of the results in their order; the others are measured against the first


def write_comparison_report(comparison: Comparison, out: Path) -> Path:
    """Write OUT/compare.md, OUT/compare.tex and OUT/compare.html; return the page's path."""
    notes = "".join(f"\n{note}\n" for note in comparison.notes)
    write_tables(comparison.results, out / "compare", comparison.published, notes)
    tones = {name: TONES[i % len(TONES)] for i, name in enumerate(comparison.results)}
    return write_page(
        out / "compare.html",
        "comparison.html.j2",
        title=TITLES[comparison.first.benchmark],
        comparison=comparison,
        tones=tones,
        charts=list(charts(comparison, tones)),
        grids=grids(comparison.results, comparison.published),
        changes=[(name, list(change_tables(comparison, name))) for name in comparison.changes],
        gallery=[(name, list(wins_and_losses(comparison, name))) for name in comparison.changes],
        metric=comparison.first.metrics[0],
        ceiling_note=CEILING_NOTE,
    )


def charts(comparison: Comparison, tones: Mapping[str, str]) -> Iterator[tuple[str, Markup, Markup]]:
    """For each table: its title, bars of the overall scores, a radar of the types."""
    first = comparison.first
    metric = first.metrics[0]
    for subset in first.tables:
        own = {name: result.means(subset, metric) for name, result in comparison.results.items()}
        overall = {name: value for name, means in own.items() if (value := means.get(OVERALL)) is not None}
        printed = {name: row.get((metric, OVERALL)) for name, row in rows_in(comparison.published, subset).items()}
        overall |= {name: value for name, value in printed.items() if value is not None and name not in overall}
        types = [line.name for line in first.tables[subset] if line.name != OVERALL]
        lines = {name: [means.get(task) for task in types] for name, means in own.items()}
        title = subset if len(first.tables) > 1 else "Overall"
        yield (
            title,
            ranked_bars(f"{title}: {metric}", overall, tones, first.best),
            radar(title, types, lines, tones, first.best),
        )


def change_tables(comparison: Comparison, name: str) -> Iterator[dict[str, Any]]:
    """For each subset and score that changed: the lines with their intervals drawn against zero."""
    for subset, metrics in comparison.changes[name].items():
        for metric, lines in metrics.items():
            reach = max((abs(end) for change in lines.values() for end in change.ci95), default=1.0)
            rows = [(line, c, interval_bar(c.delta, c.ci95, reach), _ceiling(c)) for line, c in lines.items()]
            title = metric if len(comparison.changes[name]) == 1 else f"{subset}: {metric}"
            yield {"title": title, "lines": rows, "ceiling": any(change.ceiling for change in lines.values())}


def _ceiling(change: Change) -> str:
    """What the VAE's round trip keeps: one number, or that of each result where their editors have other VAEs."""
    return " / ".join(dict.fromkeys(map(number, change.ceiling or [None])))


def wins_and_losses(comparison: Comparison, name: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The items that gained and lost most, with source and both edits."""
    metric = comparison.first.metrics[0]
    theirs = {row.key: row for row in comparison.results[name].items}
    both = paired(comparison.first.items, theirs, metric)
    ranked = sorted(((after - before, row, other) for row, other, before, after in both), key=lambda change: change[0])
    for title, changes in (
        ("Largest gains", [c for c in reversed(ranked) if c[0] > 0]),
        ("Largest losses", [c for c in ranked if c[0] < 0]),
    ):
        folders = comparison.folders[comparison.base], comparison.folders[name]
        names = comparison.base, name
        yield title, [_change_card(change, folders, names, metric) for change in changes[:GALLERY_CHANGES]]


def _change_card(
    change: tuple[float, ItemRow, ItemRow], folders: tuple[Path, Path], names: tuple[str, str], metric: str
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


def compare_tables(comparison: Comparison) -> Iterator[Table]:
    """For a terminal of 80 columns: the overall scores of all rows, and each result's changes by type."""
    metric = comparison.first.metrics[0]
    for subset in comparison.first.tables:
        title = comparison.first.title(subset)
        yield _overall_table(comparison, subset, title)
        for name, subsets in comparison.changes.items():
            if subsets[subset][metric]:
                yield _change_table(f"{title}: {metric}, {name}", subsets[subset][metric])


def _overall_table(comparison: Comparison, subset: str, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("overall")
    for metric in comparison.first.metrics:
        table.add_column(metric, justify="right")
    for name, *cells in overall_lines(comparison.results, comparison.published, subset):
        table.add_row(Text(name), *cells, style="bold" if name in comparison.results else "dim")
    return table


def _change_table(title: str, lines: Mapping[str, Change]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("type", "items", "before", "after", "change [95%]", "better", "worse"):
        table.add_column(Text(column), justify="left" if column == "type" else "right", no_wrap=True)
    for line, c in lines.items():
        if line == OVERALL:
            table.add_section()
        change = Text(f"{signed(c.delta)} [{signed(c.ci95[0])}, {signed(c.ci95[1])}]")
        means, counts = (number(c.before), number(c.after)), (str(c.better), str(c.worse))
        style = "bold" if line == OVERALL else None
        table.add_row(line, str(c.items), *means, change, *counts, style=style)
    return table
