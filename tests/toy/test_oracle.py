"""The oracle's order: target above half-done and noisy above wrong above unchanged, for every task type."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.toy import oracle
from editr1.toy.corrupt import damage, wrong
from editr1.toy.scene import draw, to_image
from editr1.toy.tasks import TASKS
from editr1.toy.world import LEVELS, ToyItem, make_item

Variant = Callable[[np.random.Generator, ToyItem], np.ndarray]
COUNT = 40

VARIANTS: dict[str, Variant] = {
    "target": lambda rng, item: draw(item.edit.target),
    "unchanged": lambda rng, item: draw(item.scene),
    "wrong": lambda rng, item: draw(wrong(rng, item, "small")),
    "half": lambda rng, item: 0.55 * draw(item.edit.target) + 0.45 * draw(item.scene),
    "noisy": lambda rng, item: draw(item.edit.target) + rng.normal(0, 0.12, (64, 64, 3)).astype(np.float32),
    "slightly noisy": lambda rng, item: draw(item.edit.target) + rng.normal(0, 0.05, (64, 64, 3)).astype(np.float32),
    "damaged": lambda rng, item: draw(damage(rng, item.edit.target, item.edit.parts, "small")),
}


def mean_scores(task: str) -> dict[str, float]:
    """Mean score of each variant over the same items of one task."""
    rng = np.random.default_rng(0)
    items = [make_item("small", "heldout", 3, TASKS.index(task) + 9 * i) for i in range(COUNT)]
    return {
        name: float(np.mean([oracle.score(item, to_image(make(rng, item))).score for item in items]))
        for name, make in VARIANTS.items()
    }


@pytest.mark.parametrize("task", TASKS)
def test_worse_edits_score_lower_for_every_task(task: str) -> None:
    means = mean_scores(task)
    assert means["target"] > 0.99
    assert means["unchanged"] < 0.02
    assert means["target"] > means["slightly noisy"] > means["noisy"] > means["unchanged"]
    assert means["target"] > means["half"] > means["unchanged"]
    assert means["noisy"] > means["wrong"] > means["unchanged"] - 1e-3
    assert means["slightly noisy"] > means["damaged"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**30), st.sampled_from(LEVELS))
def test_the_target_scores_one_and_the_source_nothing(index: int, level: str) -> None:
    item = make_item(level, "rl", 1, index)  # type: ignore[arg-type]
    assert oracle.score(item, to_image(draw(item.edit.target))).score > 0.99
    assert oracle.score(item, to_image(draw(item.scene))).score < 0.02


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**30), st.integers(0, 2**30))
def test_any_picture_scores_within_zero_and_one_as_product_of_its_parts(index: int, seed: int) -> None:
    item = make_item("small", "sft", 0, index)
    picture = np.random.default_rng(seed).random((64, 64, 3)).astype(np.float32)
    got = oracle.score(item, to_image(picture))
    assert 0 <= got.done <= 1 and 0 <= got.preserved <= 1
    assert got.score == pytest.approx(got.done * got.preserved)


def test_one_of_two_edits_is_half_done() -> None:
    item = next(i for i in (make_item("small", "sft", 0, 8 + 9 * k) for k in range(50)) if "background" in i.edit.parts)
    only_ground = draw(item.scene.__class__(item.scene.things, item.edit.target.background))
    got = oracle.score(item, to_image(only_ground))
    assert got.done == pytest.approx(0.5, abs=0.05) and got.preserved > 0.99


def test_a_lost_object_counts_as_damage_however_small_it_is() -> None:
    item = next(i for i in (make_item("small", "sft", 0, 5 + 9 * k) for k in range(50)) if len(i.scene.things) == 3)
    lost = item.edit.target.without(item.edit.target.things[0].cell)
    got = oracle.score(item, to_image(draw(lost)))
    assert got.done > 0.99 and got.preserved < 0.35
