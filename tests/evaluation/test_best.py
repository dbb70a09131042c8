"""The best step is the one whose held-out reward rose most; equal ones, missing rewards, and noise are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from editr1.evaluation.best import find_best
from editr1.evaluation.heldout.rows import EditRow
from editr1.evaluation.paired import bootstrap_ci
from editr1.report.best import best_words, is_behind
from editr1.training.best import Best

ITEMS = 8
BEFORE = np.linspace(0.2, 0.6, ITEMS)


def rows(values: Sequence[float | None], oracle: float | None = None) -> list[EditRow]:
    """Two edits of each item: a value, and the same again."""
    measured = {} if oracle is None else {"score": oracle}
    return [
        EditRow(f"k{i}", "add", index, "go", value, None, measured, f"k{i}_{index}.png")
        for i, value in enumerate(values)
        for index in range(2)
    ]


def best_of(**steps: Sequence[float | None]) -> Best:
    best = find_best(rows(BEFORE.tolist()), {int(name[1:]): rows(values) for name, values in steps.items()}, seed=0)
    assert best is not None
    return best


def test_the_best_is_the_step_with_the_highest_mean_and_its_figures_are_those_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    two, four, six = (BEFORE + rng.uniform(low, low + 0.2, ITEMS) for low in (0.0, 0.1, 0.05))
    best = best_of(s2=two.tolist(), s4=four.tolist(), s6=six.tolist())
    assert (best.step, best.items, best.last.step) == (4, ITEMS, 6)
    assert best.reward == pytest.approx(four.mean(), abs=1e-12)
    assert best.gain == pytest.approx((four - BEFORE).mean(), abs=1e-12)
    assert best.last.reward == pytest.approx(six.mean(), abs=1e-12)
    assert best.last.behind == pytest.approx((four - six).mean(), abs=1e-12)
    assert best.last.ci95 == pytest.approx(bootstrap_ci(four - six), abs=1e-12)


def test_of_equal_steps_the_earlier_one_is_the_best() -> None:
    same = (BEFORE + 0.1).tolist()
    assert best_of(s2=BEFORE.tolist(), s6=same, s4=same, s8=same).step == 4


def test_the_best_may_be_worse_than_the_start() -> None:
    best = best_of(s2=(BEFORE - 0.2).tolist(), s4=(BEFORE - 0.1).tolist())
    assert best.step == 4 and best.gain == pytest.approx(-0.1) and best.last.behind == 0


def test_items_without_a_reward_do_not_make_a_step_look_better() -> None:
    """Step 4 lacks the rewards of the hardest items: its mean is higher, its change is not."""
    few = [None, None, None, *(BEFORE[3:] + 0.05)]
    best = best_of(s2=(BEFORE + 0.1).tolist(), s4=few)
    assert np.mean(few[3:]) > best.reward and best.step == 2
    assert best.last.behind == pytest.approx(0.05)


@pytest.mark.parametrize("order", [(2, 4), (4, 2)])
def test_a_step_without_a_reward_changes_nothing(order: tuple[int, int]) -> None:
    some, none = rows((BEFORE + 0.1).tolist()), rows([None] * ITEMS)
    best = find_best(rows(BEFORE.tolist()), dict(zip(order, (some, none), strict=True)), seed=0)
    assert best == find_best(rows(BEFORE.tolist()), {order[0]: some}, seed=0)
    assert find_best(rows(BEFORE.tolist()), {2: none}, seed=0) is None
    assert find_best(rows([None] * ITEMS), {2: some}, seed=0) is None
    assert find_best(rows(BEFORE.tolist()), {}, seed=0) is None


def test_rows_of_other_items_are_passed_over() -> None:
    assert find_best(rows(BEFORE.tolist()), {2: rows([0.9] * (ITEMS - 1))}, seed=0) is None


def test_steps_whose_rewards_are_of_different_items_are_not_compared() -> None:
    first, second = [*BEFORE[:4] + 0.1, *[None] * 4], [*[None] * 4, *BEFORE[4:] + 0.05]
    best = best_of(s2=first, s4=second)
    assert (best.step, best.last.step, best.last.behind, best.last.ci95) == (2, 4, None, None)
    assert best_words(best).endswith("step 4, has no rewards of the same items")


def test_the_oracle_never_counts() -> None:
    steps = {2: rows((BEFORE + 0.2).tolist(), oracle=0.1), 4: rows((BEFORE + 0.1).tolist(), oracle=0.9)}
    best = find_best(rows(BEFORE.tolist(), oracle=0.5), steps, seed=0)
    assert best is not None and best.step == 2


def test_words_say_whether_the_last_step_is_surely_worse() -> None:
    noise = 0.1 * np.array([1, -1] * 4)
    sure = best_of(s2=(BEFORE + 0.2).tolist(), s4=(BEFORE + 0.1).tolist())
    unsure = best_of(s2=(BEFORE + 0.2).tolist(), s4=(BEFORE + 0.19 + noise).tolist())
    last = best_of(s2=BEFORE.tolist(), s4=(BEFORE + 0.1).tolist())
    assert best_words(sure) == (
        "step 2, held-out reward 0.600 (+0.20 since the start); the last one, step 4, is 0.100 behind [+0.10, +0.10], "
        "surely worse"
    )
    assert best_words(unsure).endswith(", within noise") and " is 0.010 behind [" in best_words(unsure)
    assert (
        best_words(last) == "step 4, held-out reward 0.500 (+0.10 since the start), is the last one that was measured"
    )
    assert [is_behind(best) for best in (sure, unsure, last)] == [True, False, False]
    equal = best_of(s2=(BEFORE + 0.1).tolist(), s4=(BEFORE + 0.1).tolist())
    assert "the last one, step 4, is as good [+0.00, +0.00], within noise" in best_words(equal)


def test_few_items_tell_nothing() -> None:
    best = find_best(rows([0.1, 0.2]), {2: rows([0.5, 0.6]), 4: rows([0.3, 0.3])}, seed=0)
    assert best is not None and best_words(best).endswith("on too few items to tell") and not is_behind(best)
