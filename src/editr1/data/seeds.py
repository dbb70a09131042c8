"""The seeds of every random draw: each follows from the run's seed, a purpose and a place, never from earlier draws."""

from __future__ import annotations

import numpy as np


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """A seed in [0, 2**63) for one purpose ("epoch", "rollout", "noise") at one place (epoch, or step and group index).

    Equal arguments give equal seeds on every machine; different ones give unrelated seeds.
    """
    words = [seed, *purpose.encode(), *counters]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
