"""From scored items to the lines of a table."""

from __future__ import annotations

from collections.abc import Sequence

from editr1.evaluation.benchmarks.base import ItemResult, Line
from editr1.evaluation.benchmarks.results import ItemRow

OVERALL = "overall"
Scored = ItemResult | ItemRow


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None if all are."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def line(name: str, items: Sequence[Scored], metrics: Sequence[str], needed: str) -> Line:
    """The means of some items; those without the `needed` score are counted as dropped."""
    means = {metric: mean([item.scores[metric] for item in items]) for metric in metrics}
    dropped = sum(item.scores[needed] is None for item in items)
    return Line(name, len(items), dropped, means, mean([item.careful for item in items]))


def type_table(items: Sequence[Scored], types: Sequence[str], metrics: Sequence[str]) -> tuple[Line, ...]:
    """A line for each type with items, and the overall: the mean over these lines. Empty without items."""
    lines = [line(name, [item for item in items if item.task == name], metrics, metrics[0]) for name in types]
    there = [each for each in lines if each.items]
    if not there:
        return ()
    means = {metric: mean([each.means[metric] for each in there]) for metric in metrics}
    counts = sum(each.items for each in there), sum(each.dropped for each in there)
    return (*there, Line(OVERALL, *counts, means, mean([each.careful for each in there])))
