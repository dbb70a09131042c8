"""From scored items to the lines of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from editr1.evaluation.benchmarks.base import Line

OVERALL = "overall"


class Scored(Protocol):
    """An item with its scores, and the careful reader's."""

    @property
    def task(self) -> str: ...

    @property
    def scores(self) -> Mapping[str, float | None]: ...

    @property
    def careful(self) -> float | None: ...


def mean(values: Sequence[float | None]) -> float | None:
    """Of the known ones; None where there is none."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def line(name: str, items: Sequence[Scored], metrics: Sequence[str], needed: str) -> Line:
    """The means of some items; those without the `needed` score are counted as dropped."""
    means = {metric: mean([item.scores[metric] for item in items]) for metric in metrics}
    dropped = sum(item.scores[needed] is None for item in items)
    return Line(name, len(items), dropped, means, mean([item.careful for item in items]))


def type_table(items: Sequence[Scored], types: Sequence[str], metrics: Sequence[str]) -> tuple[Line, ...]:
    """A line for each type that is there, and as overall the mean over these; nothing where there is no item."""
    lines = [line(name, [item for item in items if item.task == name], metrics, metrics[0]) for name in types]
    there = [each for each in lines if each.items]
    if not there:
        return ()
    means = {metric: mean([each.means[metric] for each in there]) for metric in metrics}
    counts = sum(each.items for each in there), sum(each.dropped for each in there)
    return (*there, Line(OVERALL, *counts, means, mean([each.careful for each in there])))
