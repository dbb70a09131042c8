"""Who makes which edits and trains on which rows: everything once, and equally much on every rank."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

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


counts = st.lists(st.integers(1, 60), max_size=12).map(lambda rows: list(enumerate(rows)))


@given(counts, ranks)
def test_every_row_is_trained_on_by_one_rank_and_loads_differ_by_one_row(
    counts: list[tuple[int, int]], ranks: int
) -> None:
    shares = share_rows(counts, ranks)
    rows = [(share.index, row) for own in shares for share in own for row in range(share.start, share.stop)]
    assert rows == [(index, row) for index, number in counts for row in range(number)]
    loads = [sum(share.stop - share.start for share in own) for own in shares]
    assert max(loads) - min(loads) <= 1


@given(counts, ranks, st.integers(1, 24))
def test_calls_of_weight_zero_make_the_numbers_of_calls_equal(
    counts: list[tuple[int, int]], ranks: int, batch: int
) -> None:
    shares = share_rows(counts, ranks, batch)
    calls = [sum(math.ceil((share.stop - share.start) / batch) for share in own) for own in shares]
    assert len(set(calls)) == 1
    assert [[share for share in own if share.weight] for own in shares] == share_rows(counts, ranks)
