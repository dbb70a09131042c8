"""Noisy supervision: its shares, and that each kind is what its name says."""

from collections import Counter

import numpy as np
import pytest

from editr1.toy.corrupt import NOISE, candidate, damage, noisy_target, wrong
from editr1.toy.world import make_item


def test_half_of_the_targets_are_right_and_the_rest_wrong_in_the_stated_shares() -> None:
    rng = np.random.default_rng(0)
    kinds: Counter[str] = Counter()
    for index in range(2000):
        item = make_item("small", "sft", 0, index)
        kind, scene = noisy_target(rng, item, "small")
        kinds[kind] += 1
        assert (scene == item.edit.target) == (kind == "right") or kind in ("damage", "wrong")
        assert (scene == item.scene) or kind != "unchanged"
    assert sum(NOISE.values()) == pytest.approx(1)
    for kind, share in NOISE.items():
        assert kinds[kind] / 2000 == pytest.approx(share, abs=0.035)


def test_damage_and_wrong_edits_differ_from_the_target() -> None:
    rng = np.random.default_rng(1)
    items = [make_item("small", "sft", 0, index) for index in range(300)]
    harmed = [damage(rng, item.edit.target, item.edit.parts, "small") != item.edit.target for item in items]
    missed = [wrong(rng, item, "small") != item.edit.target for item in items]
    assert np.mean(harmed) > 0.99 and all(missed)


def test_candidates_are_pictures_in_range() -> None:
    rng = np.random.default_rng(2)
    for index in range(200):
        picture = candidate(rng, make_item("small", "sft", 0, index), "small").picture
        assert picture.shape == (64, 64, 3) and picture.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1
