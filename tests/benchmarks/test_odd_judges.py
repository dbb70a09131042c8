"""benchmarks/odd_judges.py: one judge is perfect, and what makes the others worse has nothing to do with the edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from editr1.judges.base import JudgeRequest
from editr1.judges.rewards.function import open_own_judge
from editr1.toy.scene import draw, to_image
from editr1.toy.world import ToyDataset
from tests.benchmarks.scripts import script

ITEMS = ToyDataset("heldout", 9)


@pytest.fixture(scope="module")
def odd_judges() -> Iterator[ModuleType]:
    """The script's module."""
    with script("odd_judges") as module:
        yield module


def test_the_perfect_judge_gives_the_right_edit_nearly_1_and_the_untouched_source_less(odd_judges: ModuleType) -> None:
    judge = open_own_judge("benchmarks.odd_judges:Perfect")
    for index in range(len(ITEMS)):
        sample = ITEMS[index]
        right, untouched = judge.score(
            [JudgeRequest(sample, to_image(draw(ITEMS.item(index).edit.target))), JudgeRequest(sample, sample.source)]
        )
        assert right.value is not None and right.value > 0.95
        assert untouched.value is not None and untouched.value < right.value


def test_noise_and_brightness_do_not_know_the_instruction(odd_judges: ModuleType) -> None:
    sample = ITEMS[0]
    for name in ("noise", "brightness"):
        judge = open_own_judge(f"benchmarks.odd_judges:{name}")
        asked = [JudgeRequest(each, sample.source) for each in (sample, replace(sample, instruction="Another."))]
        one, other = judge.score(asked)
        assert one == other and one.value is not None and 0 <= one.value <= 1


def test_brightness_is_0_for_black_and_1_for_white(odd_judges: ModuleType) -> None:
    black, white = (Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 255))
    scores = [odd_judges.brightness(black, picture, "", None, None) for picture in (black, white)]
    assert scores == [0.0, 1.0]
