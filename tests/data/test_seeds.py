"""Seeds are fixed for ever: runs and evaluations of today must come out the same tomorrow."""

from __future__ import annotations

import itertools
import zlib
from typing import get_args

import numpy as np
import pytest

from editr1.data.seeds import Purpose, derive_seed, edit_seed, item_seed, key_seed

PAIRS: tuple[Purpose, Purpose] = ("rollout", "noise")


def test_derived_seeds_do_not_collide() -> None:
    seeds = {derive_seed(s, use, a, b) for s in range(3) for use in PAIRS for a in range(20) for b in range(20)}
    assert len(seeds) == 3 * 2 * 20 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_letters_of_a_purpose_cannot_be_taken_for_counters() -> None:
    """Else "a", 98 and "ab" would be the same words."""
    assert not any(b.startswith(a) for a, b in itertools.permutations(get_args(Purpose), 2))
    with pytest.raises(ValueError, match="'ab'"):
        derive_seed(0, "ab")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seed", "literal"),
    [
        (derive_seed(0, "rollout", 0, 0), 4213113400126215819),
        (derive_seed(7, "epoch", 2), 7489153447476420594),
        (edit_seed(0, 0), 15793235383387715774),
        (edit_seed(5, 3), 8065153966420768690),
        (item_seed(0, "add-12"), 4233833414),
        (item_seed(3, "größe"), 391966388),
        (key_seed("add-12"), 2491633412),
    ],
)
def test_seeds_are_fixed_for_ever(seed: int, literal: int) -> None:
    assert seed == literal


def test_seeds_are_what_their_formulas_say() -> None:
    state = np.random.SeedSequence([5, 3]).generate_state(1, np.uint64)
    assert edit_seed(5, 3) == int(state[0])
    words = np.random.SeedSequence([4, *b"noise", 1, 2]).generate_state(1, np.uint64)
    assert derive_seed(4, "noise", 1, 2) == int(words[0]) // 2
    assert item_seed(3, "a/b") == zlib.crc32(b"3/a/b") != item_seed(4, "a/b")
    assert key_seed("a/b") == zlib.crc32(b"a/b")
