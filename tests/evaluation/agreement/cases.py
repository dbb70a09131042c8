"""Pairs and a judge for tests: a picture is one flat grey, and the judge reads its brightness."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from PIL import Image as Images
from PIL.Image import Image

from editr1.evaluation.agreement.pairs import Pair, Preference
from editr1.judges.base import JudgeRequest, Score


def grey(level: int) -> Image:
    return Images.new("RGB", (4, 4), (level, level, level))


def pair(key: str, preference: Preference, levels: tuple[int, int] = (200, 100), **more: object) -> Pair:
    opened = [partial(grey, level) for level in (7, *levels)]
    return Pair(key, opened[0], "Make it bright.", opened[1], opened[2], preference, **more)  # type: ignore[arg-type]


class Brightness:
    """Scores an edit by its brightness, `step` apart; edits of the levels in `fails` get none."""

    remote = False

    def __init__(self, step: int = 1, fails: tuple[int, ...] = (), dies_after: int | None = None) -> None:
        self.step, self.fails, self.left = step, fails, dies_after
        self.asked: list[int] = []

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        levels = [request.edit.getpixel((0, 0))[0] for request in requests]  # type: ignore[index]
        self.asked += levels
        return [
            Score(None, "the answer is empty", seconds=0.5)
            if level in self.fails
            else Score(level // self.step * self.step / 255, tokens=level, seconds=0.25, prompt="p/1")
            for level in levels
        ]
