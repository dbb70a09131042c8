"""Which rank does what in a step: pure functions of the step and the number of ranks.

Edits are dealt out before rewards are known, rows of kept groups after that, so that every rank trains on equally many
rows, whatever the filter dropped. Edit i of a group depends on its seed and i alone, not on the rank that makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from editr1.algorithms.base import whole_units as whole_units

EQUAL = 4
"""Fewest edits of a rank that makes a part of a group. With fewer rows, the matrix products of a CPU (MKL) round in
another order, and edits would not be those of one process, bit for bit."""


@dataclass(frozen=True)
class Share:
    """Edits of one group that a rank makes.

    Attributes:
        index: The group's place in its step.
        first: Its first edit that this rank answers for.
        count: Number of them.
    """

    index: int
    first: int
    count: int


@dataclass(frozen=True)
class RowShare:
    """Rows of one kept group that a rank trains on: `start` to `stop`; `weight` 0 makes a call without effect."""

    index: int
    start: int
    stop: int
    weight: float = 1.0


def share_edits(groups: int, edits: int, ranks: int, whole: bool = False, equal: bool = False) -> list[list[Share]]:
    """The edits of every rank: equally many whole groups, and parts of the groups that ranks outnumber.

    Args:
        groups: Number of groups in the step.
        edits: Number of edits in a group.
        ranks: Number of ranks.
        whole: Whether no group may be split, as for a judge that compares the edits of a group.
        equal: Whether all ranks must make equally many calls of the pipeline; the last shares may then be empty.
    """
    rounds, rest = divmod(groups, ranks)
    shares = [[Share(rank * rounds + i, 0, edits) for i in range(rounds)] for rank in range(ranks)]
    for number in range(rest):
        makers = range(number * ranks // rest, (number + 1) * ranks // rest)
        parts = 1 if whole else min(len(makers), edits)
        for part, (first, end) in enumerate(_cuts(edits, parts)):
            shares[makers[part]].append(Share(ranks * rounds + number, first, end - first))
    if equal:
        most = max(map(len, shares))
        shares = [own + [Share(0, 0, 0)] * (most - len(own)) for own in shares]
    return shares


def widened(share: Share, edits: int) -> Share:
    """The share with further edits of its group, up to `EQUAL`, which are made and thrown away."""
    count = max(share.count, min(EQUAL, edits))
    return Share(share.index, min(share.first, edits - count), count)


def share_rows(counts: Sequence[tuple[int, int, int]], ranks: int, batch: int | None = None) -> list[list[RowShare]]:
    """The rows of every rank, of equal numbers to one row, or to one unit of rows that stay together.

    Args:
        counts: Index and number of rows of each kept group, and the rows of its units, which are multiples of them.
        ranks: Number of ranks.
        batch: Rows of one call, where all ranks must make equally many calls: the last ones then have weight 0.
    """
    cuts = _cuts(sum(rows for _, rows, _ in counts), ranks)
    shares = [_within(counts, *cut) for cut in cuts]
    if batch is None or not any(shares):
        return shares
    sizes = {index: whole_units(batch, unit) for index, _, unit in counts}
    calls = [sum(math.ceil((share.stop - share.start) / sizes[share.index]) for share in own) for own in shares]
    index, _, unit = next(count for count in counts if count[1])
    idle = RowShare(index, 0, unit, weight=0.0)
    return [own + [idle] * (max(calls) - made) for own, made in zip(shares, calls, strict=True)]


def _within(counts: Sequence[tuple[int, int, int]], low: int, high: int) -> list[RowShare]:
    """The rows `low` to `high` of all rows in a line, by group; a cut within a unit moves to its start."""
    shares, before = [], 0
    for index, rows, unit in counts:
        start, stop = (min(max(cut - before, 0), rows) // unit * unit for cut in (low, high))
        if start < stop:
            shares.append(RowShare(index, start, stop))
        before += rows
    return shares


def _cuts(total: int, parts: int) -> list[tuple[int, int]]:
    """`total` things in `parts` neighbouring stretches of equal length, to one."""
    return [(part * total // parts, (part + 1) * total // parts) for part in range(parts)]
