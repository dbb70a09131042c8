"""What a sampler adds to its steps, so that an edit has a likelihood; `editors/sde.py` says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NoiseKind = Literal["flow", "cps"]
"""The SDE of Flow-GRPO (arXiv 2505.05470), or coefficients-preserving sampling (arXiv 2509.05952)."""


@dataclass(frozen=True)
class StepNoise:
    """The noise of some steps of an Euler sampler; the others are those of its ODE.

    Attributes:
        kind: Law of the noise.
        scale: Its size: a in sigma_s = a sqrt(s / (1 - s)) for "flow", eta in (0, 1] for "cps".
        steps: Steps that have noise, from 0; not the last one, whose noise would stay in the picture.
    """

    kind: NoiseKind
    scale: float
    steps: range
