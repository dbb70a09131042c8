"""The seeds of every random draw: each follows from the run's seed, a purpose and a place, never from earlier draws.

Equal arguments give equal seeds on every machine. Results of runs and evaluations depend on them: they never change.
"""

from __future__ import annotations

import zlib
from typing import Literal, get_args

import numpy as np

Purpose = Literal["adapter", "epoch", "heldout", "noise", "recipe", "rollout", "sample", "step"]
"""What a seed is for. None is the beginning of another, so that its letters and the counters cannot be confused."""


def derive_seed(seed: int, purpose: Purpose, *counters: int) -> int:
    """A seed in [0, 2**63) for one purpose at one place (an epoch, or step and group index).

    Different arguments give unrelated seeds.

    Raises:
        ValueError: The purpose is not one of `Purpose`.
    """
    if purpose not in get_args(Purpose):
        raise ValueError(
            f"no seed is for {purpose!r}: add it to Purpose, unless it begins another one or is begun by it"
        )
    return _word([seed, *purpose.encode(), *counters]) >> 1


def edit_seed(seed: int, index: int) -> int:
    """A seed in [0, 2**64) for the noise of edit `index` in a rollout of seed `seed`."""
    return _word([seed, index])


def key_seed(key: str) -> int:
    """A seed in [0, 2**32) for the edits of one item of a fixed set, known by its key."""
    return zlib.crc32(key.encode())


def item_seed(seed: int, key: str) -> int:
    """A seed in [0, 2**32) for the edits of one item in an evaluation of seed `seed`."""
    return key_seed(f"{seed}/{key}")


def _word(words: list[int]) -> int:
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
