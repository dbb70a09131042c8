"""The reward of kind preservation by masks: damage outside costs, and an edit of the whole picture has no reward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from editr1.config.rewards import PreservationConfig
from editr1.data.samples import EditSample
from editr1.judges.base import JudgeRequest, Score, compares
from editr1.judges.open import open_reward
from editr1.judges.rewards.outside import OutsideReward, value_of
from editr1.judges.rewards.preservation import PreservationReward
from editr1.preservation.measure import NO_MASK, NO_OUTSIDE, TOO_SMALL, WHOLE_TASK, outside_of
from editr1.preservation.region import FEW, derive_mask

INSIDE, OUTSIDE = (8, 8, 23, 23), (36, 36, 51, 51)


def scene() -> Image.Image:
    """A smooth grey picture with a little noise."""
    values = np.random.default_rng(0).normal(128, 3, (64, 64, 3)).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8))


SOURCE = scene()


def edit(*boxes: tuple[int, int, int, int]) -> Image.Image:
    """The source with boxes painted over."""
    picture = SOURCE.copy()
    for box in boxes:
        ImageDraw.Draw(picture).rectangle(box, fill=(255, 0, 255))
    return picture


def white(box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", SOURCE.size)
    mask.paste(255, box)
    return mask


MASKED = EditSample("a", SOURCE, "paint", task="add", mask=white((8, 8, 24, 24)))
BARE = replace(MASKED, mask=None)
EDITS = [*[edit(INSIDE)] * 5, edit(INSIDE, OUTSIDE)]


def scores(reward: OutsideReward, sample: EditSample, edits: list[Image.Image]) -> list[float | str]:
    given = reward.score([JudgeRequest(sample, each) for each in edits])
    return [score.reason or "" if score.value is None else score.value for score in given]


@pytest.mark.parametrize(("masks", "sample"), [("data", MASKED), ("either", MASKED), ("either", BARE), ("group", BARE)])
def test_damage_outside_of_the_mask_costs_and_the_edit_inside_does_not(masks: str, sample: EditSample) -> None:
    *clean, damaged = scores(OutsideReward(masks), sample, EDITS)  # type: ignore[arg-type]
    assert clean == [1] * 5
    mask = sample.mask or derive_mask(SOURCE, EDITS)
    assert isinstance(mask, Image.Image)
    expected = outside_of(SOURCE, EDITS[-1], mask).measures["psnr"]
    assert damaged == pytest.approx((expected - 10) / 30) and 10 < expected < 25


def test_the_region_of_each_edit_alone_overlooks_the_damage() -> None:
    *clean, damaged = PreservationReward().score([JudgeRequest(BARE, each) for each in EDITS])
    assert damaged.value == 1 and {score.value for score in clean} == {1}


def test_a_group_keeps_its_scores_among_others_in_any_order() -> None:
    other = replace(BARE, key="b", instruction="another")
    requests = [JudgeRequest(sample, each) for each in EDITS for sample in (BARE, other)]
    values = [score.value for score in OutsideReward().score(requests)]
    assert values[::2] == values[1::2] == scores(OutsideReward(), BARE, EDITS)


@pytest.mark.parametrize(
    ("masks", "sample", "reason"),
    [
        ("data", BARE, NO_MASK),
        ("either", replace(BARE, task="style"), WHOLE_TASK),
        ("group", replace(MASKED, task="background"), WHOLE_TASK),
        ("data", replace(MASKED, mask=Image.new("L", SOURCE.size, 255)), NO_OUTSIDE),
    ],
)
def test_what_has_no_outside_has_no_score_and_says_why(masks: str, sample: EditSample, reason: str) -> None:
    assert scores(OutsideReward(masks), sample, EDITS) == [reason] * 6  # type: ignore[arg-type]
    given = OutsideReward(masks).score([JudgeRequest(sample, each) for each in EDITS])  # type: ignore[arg-type]
    assert not any(score.applies for score in given)


def test_what_follows_from_a_single_edit_does_not_mean_that_the_reward_does_not_apply() -> None:
    (tiny,) = OutsideReward("data").score([JudgeRequest(MASKED, SOURCE.resize((8, 8)))])
    assert tiny == Score(None, TOO_SMALL) and tiny.applies
    whole = Image.fromarray(255 - np.asarray(SOURCE.point(lambda level: 0)))
    (styled,) = PreservationReward().score([JudgeRequest(BARE, whole)])
    assert styled.value is None and styled.applies, "an editor could earn it by changing everything"


def test_one_edit_alone_derives_no_mask() -> None:
    assert scores(OutsideReward(), BARE, EDITS[:1]) == [FEW]


def test_the_scale_has_its_ends_at_10_and_40_decibels() -> None:
    assert [value_of(decibels) for decibels in (-3.0, 10.0, 25.0, 40.0, 60.0)] == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(("masks", "whole"), [("data", False), ("group", True), ("either", True), ("edit", False)])
def test_groups_stay_whole_where_a_mask_is_derived_from_them(masks: str, whole: bool) -> None:
    reward = open_reward(PreservationConfig(masks=masks), "cpu", None)  # type: ignore[arg-type]
    assert compares(reward) == whole
    assert isinstance(reward, PreservationReward) == (masks == "edit")
