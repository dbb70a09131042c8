"""Gains of the variants at equal steps, equal numbers of images and equal time, with intervals.

A gain is an edit's score by the averaged weights minus that by the untrained editor, from the same noise. Intervals are
95% by bootstrap over seeds and items together; differences to the first variant are paired in both.

Letters: S seeds, I measured edits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editr1.ablation.grid import Grid
from editr1.ablation.runs import ORACLES, Measured, run_of, start_of
from editr1.errors import UserError

Floats = NDArray[np.float64]
RESAMPLES = 10_000
MEASURES = (*ORACLES, "judge")
CURVES = ("oracle", "judge")  # measures that may part


@dataclass(frozen=True)
class Curve:
    """Gains of one run.

    Attributes:
        steps: Steps after which it was measured, from 0.
        images: Edits that it had made by then.
        starts: By measure, the scores of the untrained editor, [I]; NaN as in `gains`.
        gains: By measure, one row of [I] per measured step, NaN for an edit without a reward; a measure that gave no
            edit a gain is left out.
        alarms: Of the alarms that sounded, the step at which each first did, by name; None where that is not known.
    """

    steps: list[int]
    images: list[int]
    starts: dict[str, Floats]
    gains: dict[str, Floats]
    alarms: Mapping[str, int] | None = None


def read_curves(grid: Grid, out: Path) -> dict[str, dict[int, Curve]]:
    """The curves of the runs that have begun, by variant and seed, up to the grid's last step.

    A run may be there that went further, for another grid.

    Raises:
        UserError: What a run starts from is not measured.
    """
    curves: dict[str, dict[int, Curve]] = {}
    for variant in grid.variants:
        for seed in range(grid.seeds):
            config, lines = run_of(grid, variant, seed, out)
            if rows := [row for row in lines.rows if row.step <= grid.steps]:
                start = start_of(grid, config, out)
                if not start.rows:
                    raise UserError(
                        f"{start.path} is missing: what {config.out} starts from; run without --what report"
                    )
                curves.setdefault(variant, {})[seed] = curve_of(start.rows[0], rows)
    return curves


def curve_of(start: Measured, rows: Sequence[Measured]) -> Curve:
    """The gains of a run over its start."""
    points = [start, *sorted(rows, key=lambda row: row.step)]
    values = {
        **{name: [getattr(row, name) for row in points] for name in ORACLES},
        "judge": [[np.nan if value is None else value for value in row.judge] for row in points],
    }
    arrays = {name: np.array(each, dtype=np.float64) for name, each in values.items() if all(each)}
    gains = {name: array - array[0] for name, array in arrays.items()}
    known = {name: gain for name, gain in gains.items() if not np.isnan(gain[1:]).all()}
    starts = {name: arrays[name][0] for name in known}
    return Curve([row.step for row in points], [row.images for row in points], starts, known, points[-1].alarms)


def gain_at(curve: Curve, measure: str, step: float) -> Floats | None:
    """Gains [I] after `step` steps, which may lie between two measurements; None beyond the last one."""
    gains = curve.gains[measure]
    for at, (low, high) in enumerate(pairwise(curve.steps)):
        if low <= step <= high:
            share = (step - low) / (high - low)
            return np.asarray((1 - share) * gains[at] + share * gains[at + 1])
    return None


def interval(values: Floats, seed: int = 0) -> list[float]:
    """95% percentile interval of the mean of values [S, I], both resampled with replacement."""
    rng, (seeds, items) = np.random.default_rng(seed), values.shape
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
    of_items = rng.multinomial(items, np.full(items, 1 / items), RESAMPLES)
    means = ((of_seeds @ values) * of_items).sum(axis=1) / (seeds * items)
    return [float(edge) for edge in np.quantile(means, [0.025, 0.975])]


def compare(
    own: Mapping[int, Curve], first: Mapping[int, Curve], measure: str, steps: Mapping[int, tuple[float, float]]
) -> dict[str, Any] | None:
    """Score before training, gain, and its difference to the first variant's, of the seeds of both.

    None if they are not that far.

    Args:
        own: Curves of the variant by seed.
        first: Those of the first one.
        measure: One of `MEASURES`.
        steps: By seed, the steps of the variant and of the first one after which they are compared.
    """
    pairs = [(gain_at(own[seed], measure, at[0]), gain_at(first[seed], measure, at[1])) for seed, at in steps.items()]
    if (found := _of_all_seeds(pairs)) is None:
        return None
    gains, bases, scored = found
    more = gains - bases
    starts = np.stack([own[seed].starts[measure] for seed in steps])[:, scored]
    return {
        "seeds": len(gains),
        "edits": int(scored.sum()),
        "before": float(starts.mean()),
        "gain": float(gains.mean()),
        "ci95": interval(gains),
        "more": float(more.mean()),
        "more_ci95": interval(more),
    }


def _of_all_seeds(
    pairs: Sequence[tuple[Floats | None, Floats | None]],
) -> tuple[Floats, Floats, NDArray[np.bool_]] | None:
    """What every seed has twice, each [S, I'], of the edits that have a number everywhere, and which [I] these are.

    None if there is no seed, one lacks either, or no edit is left.
    """
    found = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not found or len(found) < len(pairs):
        return None
    ones, others = (np.stack(some) for some in zip(*found, strict=True))
    scored = ~np.isnan(ones + others).any(axis=0)
    return (ones[:, scored], others[:, scored], scored) if scored.any() else None


def summarise(grid: Grid, curves: Mapping[str, Mapping[int, Curve]], seconds: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of every variant: {"settings", "timed", "steps", "images", "seconds": {at: {measure: figures}}}.

    "rest" holds the changes from each measured step to the last one, "alarms" those of each run by seed. At equal time
    the first variant's steps take exactly as long as its own, whatever the noise of its timing.

    Raises:
        UserError: The first variant has no run.
    """
    if grid.first not in curves:
        raise UserError(f"no run of {grid.first!r} is measured, with which the others are compared; train it first")
    usual = seconds.get(grid.first, {}).get("seconds")
    ratios = {**{name: timed["ratio"] for name, timed in seconds.items()}, grid.first: 1.0}
    return {
        name: {
            "settings": grid.variants[name],
            "timed": seconds.get(name),
            **_tables(grid, own, curves[grid.first], ratios.get(name), usual),
            "rest": _rest(grid, own, sorted(own.keys() & curves[grid.first].keys())),
            "alarms": {seed: curve.alarms for seed, curve in own.items()},
        }
        for name, own in curves.items()
    }


def _tables(
    grid: Grid, own: Mapping[int, Curve], first: Mapping[int, Curve], ratio: float | None, usual: float | None
) -> dict[str, Any]:
    """Figures at equal steps, images and seconds; `usual` are the seconds of a step of the first variant."""
    seeds = sorted(own.keys() & first.keys())
    steps = {step: dict.fromkeys(seeds, (float(step), float(step))) for step in grid.points}
    least = min((runs[seed].images[-1] for runs in (own, first) for seed in seeds), default=0)
    images = {least: {seed: (_step_of(own[seed], least), _step_of(first[seed], least)) for seed in seeds}}
    times = {}
    if ratio and usual:
        times = {limit: dict.fromkeys(seeds, (limit / (ratio * usual), limit / usual)) for limit in grid.seconds}
    kinds: dict[str, Mapping[Any, Mapping[int, tuple[float, float]]]]
    kinds = {"steps": steps, "images": images if least else {}, "seconds": times}
    curves = (*own.values(), *first.values())
    measures = [name for name in MEASURES if all(name in curve.gains for curve in curves)]
    return {
        kind: {at: {name: compare(own, first, name, pairs) for name in measures} for at, pairs in places.items()}
        for kind, places in kinds.items()
    }


def _rest(grid: Grid, own: Mapping[int, Curve], seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Changes of oracle and judge from each measured step to the last one: {step: {measure: change}}."""
    found: dict[int, dict[str, Any]] = {}
    for step in grid.measured:
        for measure in (name for name in CURVES if all(name in own[seed].gains for seed in seeds)):
            if change := change_to(own, seeds, measure, step, grid.steps):
                found.setdefault(step, {})[measure] = change
    return found


def change_to(
    own: Mapping[int, Curve], seeds: Sequence[int], measure: str, step: float, last: float
) -> dict[str, Any] | None:
    """Change of a score from one step to a later one, with its interval; None if a run is not that far."""
    pairs = [(gain_at(own[seed], measure, step), gain_at(own[seed], measure, last)) for seed in seeds]
    if (found := _of_all_seeds(pairs)) is None:
        return None
    early, late, _ = found
    return {"change": float((late - early).mean()), "ci95": interval(late - early)}


def _step_of(curve: Curve, images: float) -> float:
    """The step after which a run has made so many edits, between two measurements by interpolation."""
    return float(np.interp(images, curve.images, curve.steps))
