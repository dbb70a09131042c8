"""Results beside each other: differences to the first one with intervals, item by item, and the published rows.

Only items that both results have scored are compared. If a benchmark's overall is the mean over its types, so is that
of the differences, and items are resampled within their type (paired percentile bootstrap); else over all items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from editr1.errors import UserError
from editr1.evaluation.benchmarks.differences import notes
from editr1.evaluation.benchmarks.lines import OVERALL
from editr1.evaluation.benchmarks.outside import ceilings_of
from editr1.evaluation.benchmarks.published import Published, published
from editr1.evaluation.benchmarks.results import ItemRow, Result, read_result
from editr1.evaluation.paired import figures, mean_of_types
from editr1.files import write_file
from editr1.preservation.measure import NAMES

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """How a mean differs from the first result's: `delta` = after - before, with its interval, on `items` items.

    Both results have scored these items; the score rose for `better` of them and fell for `worse`. What is kept outside
    of masks has its `ceiling`, what the source's round trip through each result's VAE keeps of the same items.
    """

    before: float
    after: float
    delta: float
    ci95: tuple[float, float]
    items: int
    better: int
    worse: int
    ceiling: tuple[float, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """The outcome of `compare`.

    Attributes:
        results: by name; the others are measured against the first.
        folders: the results' folders by name; paths of pictures are relative to them.
        changes: by name (not the first), subset, metric and line.
        published: the papers' rows; None if there are none.
        notes: what differs besides the scores, and whether numbers are comparable.
    """

    results: Mapping[str, Result]
    folders: Mapping[str, Path]
    changes: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Change]]]]
    published: Published | None
    notes: tuple[str, ...]

    @property
    def base(self) -> str:
        return next(iter(self.results))

    @property
    def first(self) -> Result:
        return self.results[self.base]


def compare(paths: Sequence[Path]) -> Comparison:
    """Read results and compare the others with the first.

    Raises:
        UserError: one cannot be read, they are of different benchmarks, or two have the same name.
    """
    results: dict[str, Result] = {}
    folders: dict[str, Path] = {}
    for path, name in zip(paths, _names(paths), strict=True):
        results[name] = read_result(path)
        folders[name] = path if path.is_dir() else path.parent
    kinds = sorted({result.benchmark for result in results.values()})
    if len(kinds) > 1:
        raise UserError(f"cannot compare results of {' and '.join(kinds)}: give results of one benchmark")
    (_, first), *others = results.items()
    for name, other in others:
        if set(first.metrics) - {*other.metrics, *NAMES}:
            raise UserError(f"{name} lacks scores of the first result ({', '.join(first.metrics)}): give results alike")
    every = dict.fromkeys(metric for result in results.values() for metric in result.metrics)
    shared = [metric for metric in first.metrics if all(metric in result.metrics for result in results.values())]
    left_out = [metric for metric in every if metric in NAMES and metric not in shared]
    results = {name: replace(result, metrics=tuple(shared)) for name, result in results.items()}
    (_, first), *others = results.items()
    changes = {name: changes_of(first, other) for name, other in others}
    papers = published(first.benchmark)
    more = (f"Not all results have {', '.join(left_out)}, so that is left out.",) if left_out else ()
    return Comparison(results, folders, changes, papers, (*notes(results, papers), *more))


def changes_of(first: Result, other: Result) -> dict[str, dict[str, dict[str, Change]]]:
    """Changes by subset, metric and line."""
    theirs = {row.key: row for row in other.items}
    return {
        subset: {metric: _changes(first, theirs, subset, metric) for metric in first.metrics} for subset in first.tables
    }


def paired(
    rows: Sequence[ItemRow], theirs: Mapping[str, ItemRow], metric: str
) -> list[tuple[ItemRow, ItemRow, float, float]]:
    """The items that both have scored: the two rows, score before and after."""
    both = [(row, theirs[row.key]) for row in rows if row.key in theirs]
    return [
        (row, other, before, after)
        for row, other in both
        if (before := row.scores[metric]) is not None and (after := other.scores[metric]) is not None
    ]


def _changes(first: Result, theirs: Mapping[str, ItemRow], subset: str, metric: str) -> dict[str, Change]:
    rows = [row for row in first.items if subset in row.subsets]
    both = paired(rows, theirs, metric)
    if not both:
        return {}
    pairs = np.array([(before, after) for _, _, before, after in both])
    tasks = np.array([row.task for row, _, _, _ in both])
    by_type = {task: pairs[tasks == task] for task in dict.fromkeys(row.task for row, _, _, _ in both)}
    parts = {task: (part, figures(part[:, 0], part[:, 1])) for task, part in by_type.items()}
    total = figures(pairs[:, 0], pairs[:, 1]) if first.overall == "items" else mean_of_types(list(by_type.values()))
    before, after = (
        ceilings_of(replace(first, items=tuple(items)), [metric])[metric]
        for items in ([row for row, *_ in both], [replace(other, task=row.task) for row, other, *_ in both])
    )
    return {
        line: _change(*part, (before[line], after[line])) for line, part in {**parts, OVERALL: (pairs, total)}.items()
    }


def _change(pairs: Floats, summary: Mapping[str, Any], ceilings: tuple[float | None, float | None]) -> Change:
    delta = pairs[:, 1] - pairs[:, 0]
    counts = len(delta), int((delta > 0).sum()), int((delta < 0).sum())
    before, after = ceilings
    ceiling = None if before is None or after is None else (before, after)
    return Change(summary["before"], summary["after"], summary["delta"], tuple(summary["ci95"]), *counts, ceiling)


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write compare.json: the differences of the results."""
    papers = comparison.published
    content = {
        "results": {name: {"folder": str(comparison.folders[name])} for name in comparison.results},
        "changes": TypeAdapter(Any).dump_python(comparison.changes, mode="json"),
        "published": papers and {"source": papers.source, "judge": papers.judge},
        "notes": comparison.notes,
    }
    write_file(out / "compare.json", (json.dumps(content, indent=1) + "\n").encode())


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as it takes to tell them apart."""
    places = [(path if path.is_dir() else path.parent).resolve() for path in paths]
    if len(set(places)) < len(places):
        raise UserError("the same result is given twice")
    depth = 1
    while len({place.parts[-depth:] for place in places}) < len(places):
        depth += 1
    return ["/".join(place.parts[-depth:]) for place in places]
