"""Numbers about agreement: accuracy with its bootstrap interval, calibration, distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from editr1.evaluation.agreement.pairs import Pair
from editr1.evaluation.agreement.ties import Bools, Floats, Ints, Rule, Units
from editr1.evaluation.paired import grouped_interval, mean_of_shares

BINS = 5


def accuracy(units: Units, rule: Rule, pairs: Sequence[Pair]) -> float | None:
    """Share of the units that are right, averaged by the rule; None without units."""
    sums, counts = _table(units, rule, pairs)
    return mean_of_shares(sums.sum(0), counts.sum(0)) if counts.sum() else None


def bootstrap_interval(units: Units, rule: Rule, pairs: Sequence[Pair], seed: int = 0) -> list[float] | None:
    """95% percentile interval of the accuracy, resampled over groups of pairs; a fitted tie threshold stays fixed."""
    sums, counts = _table(units, rule, pairs)
    return grouped_interval(sums, counts, seed) if counts.sum() else None


def headline(units: Units, rule: Rule, pairs: Sequence[Pair]) -> Bools:
    """Which units the accuracy counts, [U]: those of the dimension "overall" if the rule averages these, else all."""
    overall = np.array([pairs[i].dimension == "overall" for i in units.pair], bool)
    return overall if rule.mean_of_types and overall.any() else np.ones(len(overall), bool)


def by(units: Units, names: Sequence[str], chosen: Bools) -> dict[str, dict[str, Any]]:
    """{"accuracy", "units"} of the chosen units by name; `names` has one for each unit."""
    rows: dict[str, list[float]] = {}
    for i in np.flatnonzero(chosen).tolist():
        rows.setdefault(names[int(i)], []).append(float(units.right[i]))
    return {name: {"accuracy": sum(rows[name]) / len(rows[name]), "units": len(rows[name])} for name in sorted(rows)}


def by_dimension(units: Units, rule: Rule, pairs: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """{"accuracy", "units", "by_task"} by the aspect that people judged; empty if there is only one."""
    dimension = np.array([pairs[i].dimension for i in units.pair], dtype=np.str_)
    dimensions = {}
    for name in sorted(set(dimension) - {""}):
        tasks = by(units, units.task, dimension == name)
        right = units.right[dimension == name]
        shares = [row["accuracy"] for row in tasks.values()] if rule.mean_of_types else right
        dimensions[str(name)] = {"accuracy": float(np.mean(shares)), "units": len(right), "by_task": tasks}
    return dimensions


def _table(units: Units, rule: Rule, pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    """Sum of right units and number of units by group and by task (one column if the mean is over all units)."""
    chosen = np.flatnonzero(headline(units, rule, pairs))
    groups = [pairs[units.pair[i]].group or pairs[units.pair[i]].key for i in chosen]
    tasks = [units.task[i] if rule.mean_of_types else "" for i in chosen]
    rows, row = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)
    columns, column = np.unique(np.array(tasks, dtype=np.str_), return_inverse=True)
    sums, counts = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
    np.add.at(sums, (row, column), units.right[chosen])
    np.add.at(counts, (row, column), 1)
    return sums, counts


def calibration(difference: Floats, label: Ints, bins: int = 8) -> list[dict[str, Any]]:
    """How often a judge is right, by the distance of its scores: bins of about equal size over |difference|.

    Only pairs on which people decided; equal differences share a bin; equal scores count half.
    """
    use = (label != 0) & ~np.isnan(difference)
    size = np.abs(difference[use])
    right = np.where(size == 0, 0.5, difference[use] * label[use] > 0)
    edges = np.unique(np.quantile(size, np.linspace(0, 1, bins + 1)[1:-1])) if len(size) else np.zeros(0)
    where = np.searchsorted(edges, size, side="left")
    rows = [where == i for i in range(len(edges) + 1) if (where == i).any()]
    return [
        {"difference": float(size[row].mean()), "right": float(right[row].mean()), "pairs": int(row.sum())}
        for row in rows
    ]


def distribution(scores: Floats, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Share of the scores in each fifth of [low, high]; zeros without scores."""
    numbers = scores[~np.isnan(scores)]
    places = (numbers - low) / ((high - low) or 1) * BINS
    counts = np.bincount(np.clip(np.floor(places + 1e-9), 0, BINS - 1).astype(np.int64), minlength=BINS)
    return [float(count) / max(len(numbers), 1) for count in counts]
