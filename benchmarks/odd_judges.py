"""A perfect judge, and reward functions that make one worse on purpose, for benchmarks/grids/judges.yaml.

Run the grid in the repository's folder, so that `benchmarks.odd_judges` is found.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from editr1.evaluation.heldout.measure import toy_oracle
from editr1.judges.base import JudgeRequest, Score


def noise(source: Image.Image, edit: Image.Image, instruction: str, requirement: str | None, task: str | None) -> float:
    """A number in [0, 1) that has nothing to do with how good the edit is; the same for the same edit."""
    return zlib.crc32(edit.convert("RGB").tobytes()) / 2**32


def brightness(
    source: Image.Image, edit: Image.Image, instruction: str, requirement: str | None, task: str | None
) -> float:
    """The mean brightness of the edit, in [0, 1]: a taste that no instruction asks for."""
    return float(np.asarray(edit.convert("L"), dtype=np.float64).mean() / 255)


class Perfect:
    """The toy world's oracle as the judge: what no judge can surpass."""

    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """The oracle's scores."""
        return [Score(toy_oracle(request.sample.key, request.edit)["score"]) for request in requests]
