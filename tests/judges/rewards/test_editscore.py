"""EditScore's answers as rewards: the formula, and no number where the answer holds none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.config.rewards import EditScoreConfig
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest
from editr1.judges.open import open_reward
from editr1.judges.rewards.editscore import EditScoreReward, read_scores


class Scripted:
    """In the place of the package's object: its two prompts, and a model that says what it is told to."""

    SC_prompt, PQ_prompt, score_range = "Rate <instruction>", "Rate the picture", 25

    def __init__(self, following: str, quality: str) -> None:
        self.texts = {"Rate paint it": following, "Rate the picture": quality}
        self.model = self
        self.shown: list[int] = []

    def prepare_input(self, images: list[Any], prompt: str) -> str:
        self.shown.append(len(images))
        return prompt

    def inference(self, prompt: str) -> str:
        return self.texts[prompt]


def request() -> JudgeRequest:
    return JudgeRequest(EditSample("", Image.new("RGB", (4, 4)), "paint it"), Image.new("RGB", (4, 4), "red"))


def test_the_least_scores_are_multiplied_as_the_paper_does() -> None:
    scorer = Scripted('Well: {"reasoning": "x", "score": [20, 15]}', '```json\n{"score": [10.0, 25]}\n```')
    (score,) = EditScoreReward(scorer).score([request()])
    assert score.value == pytest.approx(math.sqrt(15 / 25 * 10 / 25)) and scorer.shown == [2, 1]


def test_editscore_is_shown_two_pictures_whatever_the_item_refers_to() -> None:
    scorer, one = Scripted('{"score": [20, 15]}', '{"score": [10, 25]}'), request()
    several = replace(one, sample=replace(one.sample, references=(Image.new("RGB", (4, 4)),)))
    assert EditScoreReward(scorer).score([several]) == EditScoreReward(scorer).score([one])
    assert scorer.shown == [2, 1, 2, 1]


@pytest.mark.parametrize(
    "text", ["", "fine", '{"score": []}', '{"score": [26, 3]}', '{"score": ["5"]}', '{"score": 5}', "{", '{"a": 1}']
)
def test_an_answer_without_scores_is_no_reward(text: str) -> None:
    assert read_scores(text, 25) is None
    (score,) = EditScoreReward(Scripted('{"score": [20, 15]}', text)).score([request()])
    assert score.value is None and score.reason is not None and "no scores" in score.reason


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    for content, words in ((None, "no model at"), ("llava", "is built on qwen2_5_vl")):
        if content:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": content}))
        with pytest.raises(UserError, match=words):
            open_reward(EditScoreConfig(path=str(tmp_path)), "cpu", None)  # type: ignore[arg-type]
