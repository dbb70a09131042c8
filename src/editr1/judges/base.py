"""What a judge is: edits in, one score or one reason for having none out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image


@dataclass(frozen=True)
class JudgeRequest:
    """One edit to be judged: source image, edited image, and what was asked for."""

    source: Image
    edit: Image
    instruction: str
    requirement: str = ""
    task: str = "edit"


@dataclass(frozen=True)
class Score:
    """A reward in [0, 1], or None with the reason why there is none (a failure is never a number).

    `probs` holds the probability of each score token, where the method reads logits.
    """

    value: float | None
    reason: str | None = None
    probs: tuple[float, ...] | None = None


class Judge(Protocol):
    """Scores edits; results stand in the order of the requests, one each."""

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]: ...
