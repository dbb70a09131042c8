"""What the diagnoses read, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from editr1.report.run_folder import Run
from editr1.training.alarms import WINDOW, Rows, difference, values_of
from editr1.training.best import Best
from editr1.training.step_row import groups_made


class Case(NamedTuple):
    """A run as the diagnoses read it.

    Attributes:
        rows: Rows of metrics.jsonl in the order of the steps.
        config: All settings as nested mappings.
        results: Content of results.json; None without an evaluation.
        self_check: Content of self_check.json; None without one.
        best: The best checkpoint; None without an evaluation.
    """

    rows: Rows
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None = None
    self_check: Mapping[str, Any] | None = None
    best: Best | None = None


def case_of(run: Run) -> Case:
    """The case of a run's folder."""
    return Case(run.metrics, run.config, run.results, run.self_check, run.best)


class Finding(NamedTuple):
    """One sentence about a run.

    Attributes:
        name: Short name; a kind of finding has one.
        text: What was seen, with its figure, and the setting to try.
        wrong: Whether it should be mended; otherwise it is good to know.
    """

    name: str
    text: str
    wrong: bool = True


def groups_of(rows: Rows) -> int:
    """The number of groups that the steps made."""
    return sum(map(groups_made, rows))


def change_of(rows: Rows, key: str) -> tuple[float, float]:
    """By how much a number changed from the first rows to the last ones, and the standard error of that.

    The error is infinite in a run that is too short to have both.
    """
    start, now = (rows[:WINDOW], rows[-WINDOW:]) if len(rows) >= 2 * WINDOW else ((), ())
    return difference(values_of(start, key), values_of(now, key))
