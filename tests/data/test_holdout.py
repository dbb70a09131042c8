"""The held-out part of a dataset."""

from __future__ import annotations

import pytest

from editr1.data.holdout import choose, hold_out
from editr1.errors import UserError
from tests.training.runs import Colours


@pytest.mark.parametrize(("amount", "held"), [(0.2, 1), (0.3, 2), (3, 3)])
def test_parts_share_no_item_and_together_are_the_dataset(amount: float, held: int) -> None:
    training, heldout = hold_out(Colours(), range(5), amount)
    assert len(heldout) == held
    assert sorted([*training.indices, *heldout.indices]) == [0, 1, 2, 3, 4]
    assert [heldout[i].key for i in range(held)] == [f"item-{i}" for i in heldout.indices]
    assert [list(part.indices) for part in hold_out(Colours(), range(5), amount)] == [
        list(training.indices),
        list(heldout.indices),
    ]


@pytest.mark.parametrize("amount", [1, 2, 3])
def test_items_of_one_source_image_are_on_one_side(amount: int) -> None:
    sources = ["a", "b", "a", "b", "c"]
    training, heldout = hold_out(Colours(), sources, amount)
    assert not {sources[i] for i in training.indices} & {sources[i] for i in heldout.indices}
    assert amount <= len(heldout) <= amount + 1


@pytest.mark.parametrize(("sources", "amount"), [(range(5), 5), (range(5), 0.99), ("aaaaa", 1)])
def test_split_that_leaves_nothing_to_train_on_is_refused(sources: range | str, amount: float) -> None:
    with pytest.raises(UserError, match=rf"evaluation.split={amount:g} holds out 5 of 5 items"):
        hold_out(Colours(), sources, amount)


def test_choice_of_items_is_fixed_and_keeps_their_order() -> None:
    assert [len(choose(Colours(), items)) for items in (None, 9, 5, 2)] == [5, 5, 5, 2]
    first, again = choose(Colours(), 3), choose(Colours(), 3)
    keys = [first[i].key for i in range(3)]
    assert keys == sorted(keys) == [again[i].key for i in range(3)]
