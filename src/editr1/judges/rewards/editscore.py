"""EditScore (arXiv 2509.23909), a published reward model for edits, through its own package: pip install editscore.

The package brings the prompts and runs the model (on a GPU; a Qwen2.5-VL or Qwen3-VL with EditScore's LoRA). Its own
reading of the answers makes up numbers if there are none; here such an edit has no reward.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Protocol

from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score, SingleJudge

BACKBONES = {"qwen2_5_vl": "qwen25vl", "qwen3_vl": "qwen3vl"}
OBJECT = re.compile(r"\{.*\}", re.DOTALL)


class Scorer(Protocol):
    """The used part of the package's `EditScore`: its prompts, its range of scores, and its model."""

    SC_prompt: str
    PQ_prompt: str
    score_range: int
    model: Any


class EditScoreReward(SingleJudge):
    """sqrt(least of following and consistency x least of naturalness and freedom from artefacts), over the range."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def score_one(self, request: JudgeRequest) -> Score:
        following = self.scorer.SC_prompt.replace("<instruction>", request.sample.instruction)
        texts, least = [], []
        for images, prompt in (
            ([request.sample.source, request.edit], following),
            ([request.edit], self.scorer.PQ_prompt),
        ):
            texts.append(str(self.scorer.model.inference(self.scorer.model.prepare_input(images, prompt))))
            numbers = read_scores(texts[-1], self.scorer.score_range)
            if numbers is None:
                return Score(None, f"EditScore: no scores in the answer {texts[-1][:80]!r}", text="\n---\n".join(texts))
            least.append(min(numbers) / self.scorer.score_range)
        return Score(math.sqrt(least[0] * least[1]), text="\n---\n".join(texts), prompt="editscore")


def read_scores(text: str, high: int) -> list[float] | None:
    """The list "score" of the JSON object in an answer; None unless all are numbers in [0, high]."""
    match = OBJECT.search(text)
    try:
        scores = json.loads(match.group())["score"] if match else None
    except (ValueError, KeyError):
        return None
    if not isinstance(scores, list) or not scores:
        return None
    numbers = [float(score) for score in scores if isinstance(score, int | float) and not isinstance(score, bool)]
    return numbers if len(numbers) == len(scores) and all(0 <= number <= high for number in numbers) else None


def load_editscore(base: Path, lora: str | None) -> Scorer:
    """EditScore over a base model's folder and the folder of its LoRA."""
    try:
        kind = json.loads((base / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise UserError(f"rewards: no model at {base} ({error}): give the folder of EditScore's base model") from error
    if kind not in BACKBONES:
        raise UserError(f"rewards: EditScore is built on {', '.join(BACKBONES)}; {base} holds a {kind}")
    try:
        from editscore import EditScore  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UserError(f"rewards: kind editscore needs its package ({error}): pip install editscore") from error
    scorer: Scorer = EditScore(backbone=BACKBONES[kind], model_name_or_path=str(base), lora_path=lora)
    return scorer
