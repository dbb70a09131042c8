"""Who makes which edits and trains on which rows: everything once, and equally much on every rank."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from editr1.algorithms.base import Rows
from editr1.training.sharing import EQUAL, Share, share_edits, share_rows, widened

groups, edits, ranks = st.integers(1, 30), st.integers(2, 14), st.integers(1, 40)


@given(groups, edits, ranks, st.booleans())
def test_every_edit_is_made_by_one_rank(groups: int, edits: int, ranks: int, whole: bool) -> None:
    shares = [share for own in share_edits(groups, edits, ranks, whole) for share in own]
    made = sorted((share.index, share.first + i) for share in shares for i in range(share.count))
    assert made == [(index, i) for index in range(groups) for i in range(edits)]
    if whole:
        assert all(share.count == edits for share in shares)


@given(groups, edits, ranks)
def test_groups_stay_whole_where_there_are_enough_and_loads_differ_by_less_than_one(
    groups: int, edits: int, ranks: int
) -> None:
    shares = share_edits(groups, edits, ranks)
    rounds = groups // ranks
    assert all(own[:rounds] == [Share(own[0].index + i, 0, edits) for i in range(rounds)] for own in shares if rounds)
    assert all(len(own) in (rounds, rounds + 1) for own in shares)
    loads = [sum(share.count for share in own) for own in shares]
    assert max(loads) <= (rounds + 1) * edits and min(loads) >= rounds * edits


@given(groups, edits, ranks)
def test_ranks_that_share_weights_make_equally_many_calls(groups: int, edits: int, ranks: int) -> None:
    shares = share_edits(groups, edits, ranks, equal=True)
    assert len({len(own) for own in shares}) == 1
    plain = share_edits(groups, edits, ranks)
    assert [[share for share in own if share.count] for own in shares] == plain


@given(edits, st.integers(0, 13), st.integers(1, 14))
def test_a_part_of_a_group_is_made_in_calls_of_four_edits_or_more(edits: int, first: int, count: int) -> None:
    first, count = min(first, edits - 1), min(count, edits - min(first, edits - 1))
    wide = widened(Share(3, first, count), edits)
    assert wide.index == 3 and wide.first <= first and first + count <= wide.first + wide.count <= edits
    assert wide.count == max(count, min(EQUAL, edits))


Counts = list[tuple[int, int, int]]
counts = st.lists(st.integers(1, 60), max_size=12).map(lambda rows: [(index, n, 1) for index, n in enumerate(rows)])
units = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 12)), max_size=12).map(
    lambda groups: [(index, number * unit, unit) for index, (number, unit) in enumerate(groups)]
)


@given(counts, ranks)
def test_every_row_is_trained_on_by_one_rank_and_loads_differ_by_one_row(counts: Counts, ranks: int) -> None:
    shares = share_rows(counts, ranks)
    rows = [(share.index, row) for own in shares for share in own for row in range(share.start, share.stop)]
    assert rows == [(index, row) for index, number, _ in counts for row in range(number)]
    loads = [sum(share.stop - share.start for share in own) for own in shares]
    assert max(loads) - min(loads) <= 1


@given(counts, ranks, st.integers(1, 24))
def test_calls_of_weight_zero_make_the_numbers_of_calls_equal(counts: Counts, ranks: int, batch: int) -> None:
    shares = share_rows(counts, ranks, batch)
    calls = [sum(math.ceil((share.stop - share.start) / batch) for share in own) for own in shares]
    assert len(set(calls)) == 1
    assert [[share for share in own if share.weight] for own in shares] == share_rows(counts, ranks)


@given(units, ranks)
def test_rows_that_stay_together_are_on_one_rank(counts: Counts, ranks: int) -> None:
    shares = share_rows(counts, ranks)
    rows = [(share.index, row) for own in shares for share in own for row in range(share.start, share.stop)]
    assert rows == [(index, row) for index, number, _ in counts for row in range(number)]
    unit = {index: size for index, _, size in counts}
    assert all(
        share.start % unit[share.index] == share.stop % unit[share.index] == 0 for own in shares for share in own
    )
    loads = [sum(share.stop - share.start for share in own) for own in shares]
    assert max(loads) - min(loads) < 1 + 2 * max(unit.values(), default=1)


@given(units, ranks, st.integers(1, 24))
def test_calls_of_whole_units_are_equally_many_on_every_rank(counts: Counts, ranks: int, batch: int) -> None:
    shares, unit = share_rows(counts, ranks, batch), {index: size for index, _, size in counts}
    calls = [
        sum(len([*bare(share.stop - share.start, unit[share.index]).split(batch)]) for share in own) for own in shares
    ]
    assert len(set(calls)) == 1
    assert all(share.stop - share.start == unit[share.index] for own in shares for share in own if share.weight == 0)
    assert [[share for share in own if share.weight] for own in shares] == share_rows(counts, ranks)


def bare(number: int, unit: int) -> Rows:
    """Rows without content."""
    nothing = torch.empty(number, 0, 0)
    return Rows(nothing, nothing, torch.empty(number), torch.empty(number), unit=unit)
