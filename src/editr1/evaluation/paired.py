"""Differences with their 95% intervals, and the content of a run's `results.json`. Nothing else resamples.

The unit is the item, because edits of one item are not independent: its edits are averaged first, then items are
resampled with replacement (paired percentile bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editr1.evaluation.heldout.rows import EditRow
from editr1.preservation.measure import CEILING, names_of

Floats = NDArray[np.float64]
RESAMPLES = 10_000
GROUP_RESAMPLES = 2_000
FEW = 5  # items below which an interval says little: resampling a handful of values hardly varies them


def bootstrap_ci(differences: Floats, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of `differences` [items], resampled over items; a ValueError without items."""
    if len(differences) == 0:
        raise ValueError("no items to resample")
    picks = np.random.default_rng(seed).integers(0, len(differences), (RESAMPLES, len(differences)))
    means = differences[picks].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def figures(before: Floats, after: Floats, seed: int = 0) -> dict[str, Any]:
    """{"before", "after", "delta", "ci95"} of paired item means [items]; all None without items."""
    if len(before) == 0:
        return {"before": None, "after": None, "delta": None, "ci95": None}
    delta = after - before
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "delta": float(delta.mean()),
        "ci95": list(bootstrap_ci(delta, seed)),
    }


def mean_of_types(types: Sequence[Floats], seed: int = 0) -> dict[str, Any]:
    """{"before", "after", "delta", "ci95"} of the mean over types, each [items, 2]; items resampled within a type."""
    rng = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for pairs in types:
        delta = pairs[:, 1] - pairs[:, 0]
        means += delta[rng.integers(0, len(delta), (RESAMPLES, len(delta)))].mean(axis=1) / len(types)
    before, after = (float(np.mean([pairs[:, side].mean() for pairs in types])) for side in (0, 1))
    low, high = np.quantile(means, [0.025, 0.975])
    return {"before": before, "after": after, "delta": after - before, "ci95": [float(low), float(high)]}


def grouped_interval(sums: Floats, counts: Floats, seed: int = 0) -> list[float]:
    """95% percentile interval of `mean_of_shares`, resampled over groups; both [groups, types]."""
    rng, means = np.random.default_rng(seed), []
    groups = len(sums)
    for _ in range(GROUP_RESAMPLES):
        picks = np.bincount(rng.integers(0, groups, groups), minlength=groups)
        means.append(mean_of_shares(picks @ sums, picks @ counts))
    return [float(edge) for edge in np.nanquantile(means, [0.025, 0.975])]


def mean_of_shares(sums: Floats, counts: Floats) -> float:
    """Mean of sum / count over the types that have a count; both [types]."""
    present = counts > 0
    return float((sums[present] / counts[present]).mean())


def summarise(before: Sequence[EditRow], after: Sequence[EditRow], seed: int, train_seconds: float) -> dict[str, Any]:
    """The content of `results.json`.

    What is kept outside of masks has the "ceiling" of the same items beside it, the VAE's round trip before training.
    An item with an edit without a reward, before or after, is left out of the judge's figures and counted in
    "judge_left_out"; it stays in the oracle's. Items without an oracle have no "oracle".

    Raises:
        ValueError: the two evaluations do not hold the same (item, seed) pairs.
    """
    if not same_edits(before, after):
        raise ValueError("the rows before and after training are not of the same items and seeds")
    tasks, measures, ceilings = {row.key: row.task for row in before}, _measures(before, after), _ceilings(before)

    def each(keys: Sequence[str]) -> dict[str, Any]:
        return _every(measures, ceilings, keys, seed)

    groups = {task: [key for key in tasks if tasks[key] == task] for task in sorted(set(tasks.values()))}
    return {
        "items": len(tasks),
        "train_seconds": train_seconds,
        "seed": seed,
        **each(list(tasks)),
        "judge_left_out": len(tasks) - len(measures["judge"]),
        "by_task": {task: {**each(keys), "n": len(keys)} for task, keys in groups.items()},
    }


def change(before: Sequence[EditRow], after: Sequence[EditRow], seed: int) -> dict[str, Any]:
    """{"judge": {"before", "after", "delta", "ci95"}} of all items, with "oracle" if they have one."""
    keys = list(dict.fromkeys(row.key for row in before))
    return _every(_measures(before, after), _ceilings(before), keys, seed)


class Gain(NamedTuple):
    """Mean reward after, its mean change, and the number of items that it is of."""

    after: float
    change: float
    items: int


def gain_of(before: Sequence[EditRow], after: Sequence[EditRow]) -> Gain | None:
    """How the judge's reward changed over the items that have it in both; None if there are none."""
    pairs = np.array([*_paired(before, after, lambda row: row.judge).values()]).reshape(-1, 2)
    if len(pairs) == 0:
        return None
    return Gain(float(pairs[:, 1].mean()), float((pairs[:, 1] - pairs[:, 0]).mean()), len(pairs))


def same_edits(before: Sequence[EditRow], after: Sequence[EditRow]) -> bool:
    """Whether both are rows of the same items and edits."""
    return {(row.key, row.index) for row in before} == {(row.key, row.index) for row in after}


def _measures(before: Sequence[EditRow], after: Sequence[EditRow]) -> dict[str, dict[str, tuple[float, float]]]:
    """Item means (before, after), by measure and key: the judge's, the oracle's and what is kept outside, if any."""
    measures = {"judge": _paired(before, after, lambda row: row.judge)}
    if all(row.oracle for row in before):
        measures = {"oracle": _paired(before, after, lambda row: row.oracle["score"]), **measures}
    first, second = (names_of(row.outside for row in rows) for rows in (before, after))
    for name in (name for name in first if name in second):
        measures[name] = _paired(before, after, _outside(name))
    return measures


def _ceilings(rows: Sequence[EditRow]) -> dict[str, dict[str, float]]:
    """Item means of what the VAE's round trip keeps, by the measure whose ceiling it is, and by key."""
    names = names_of(row.outside for row in rows)
    means = {name: _item_means(rows, _outside(CEILING + name)) for name in names}
    return {name: each for name, each in means.items() if each}


def _outside(name: str) -> Callable[[EditRow], float | None]:
    return lambda row: row.outside.get(name)


def _every(
    measures: Mapping[str, Mapping[str, tuple[float, float]]],
    ceilings: Mapping[str, Mapping[str, float]],
    keys: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """The figures of each measure over the items of these keys, with its ceiling over those that it has of them."""
    every = {name: _figures_of(paired, keys, seed) for name, paired in measures.items()}
    for name in ceilings.keys() & measures.keys():
        values = [ceilings[name][key] for key in keys if key in measures[name] and key in ceilings[name]]
        every[name]["ceiling"] = sum(values) / len(values) if values else None
    return every


def _paired(
    before: Sequence[EditRow], after: Sequence[EditRow], value: Callable[[EditRow], float | None]
) -> dict[str, tuple[float, float]]:
    """Mean over an item's edits, (before, after), for the items whose edits all have a value."""
    first, second = (_item_means(rows, value) for rows in (before, after))
    return {key: (first[key], second[key]) for key in first if key in second}


def _item_means(rows: Sequence[EditRow], value: Callable[[EditRow], float | None]) -> dict[str, float]:
    values: dict[str, list[float | None]] = {}
    for row in rows:
        values.setdefault(row.key, []).append(value(row))
    whole = {key: [v for v in some if v is not None] for key, some in values.items()}
    return {key: sum(numbers) / len(numbers) for key, numbers in whole.items() if len(numbers) == len(values[key])}


def _figures_of(paired: Mapping[str, tuple[float, float]], keys: Sequence[str], seed: int) -> dict[str, Any]:
    pairs = np.array([paired[key] for key in keys if key in paired]).reshape(-1, 2)
    return figures(pairs[:, 0], pairs[:, 1], seed)
