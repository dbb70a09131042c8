"""Which of the checkpoints that were measured on held-out items is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editr1.evaluation.heldout.rows import EditRow
from editr1.evaluation.paired import change, gain_of, same_edits
from editr1.training.best import Best, Last


def find_best(before: Sequence[EditRow], measured: Mapping[int, Sequence[EditRow]], seed: int) -> Best | None:
    """The step whose judge's reward rose most since before training, the earliest of equal ones; None without any.

    An item counts if all of its edits have a reward, before training and after the step; the oracle never counts.

    Args:
        before: Rows before training.
        measured: Rows by step; those of other items are passed over.
        seed: Seed of the interval.
    """
    rows = {step: measured[step] for step in sorted(measured) if same_edits(before, measured[step])}
    gains = {step: gain for step in rows if (gain := gain_of(before, rows[step])) is not None}
    if not gains:
        return None
    best, last = max(gains, key=lambda step: gains[step].change), max(gains)
    compared = change(rows[last], rows[best], seed)["judge"]
    return Best(
        step=best,
        reward=gains[best].after,
        gain=gains[best].change,
        items=gains[best].items,
        last=Last(step=last, reward=gains[last].after, behind=compared["delta"], ci95=compared["ci95"]),
    )
