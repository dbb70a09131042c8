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

from editr1.errors import NOT_JSON, UserError, read_json
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
    except (*NOT_JSON, LookupError, TypeError):
        return None
    if not isinstance(scores, list) or not scores:
        return None
    if not all(type(score) in (int, float) and 0 <= score <= high for score in scores):
        return None
    return [float(score) for score in scores]


def backbone_of(base: Path) -> str:
    """EditScore's name for the kind of a base model; a UserError if it is no model that EditScore is built on."""
    if not (base / "config.json").is_file():
        raise UserError(f"rewards: no model at {base}: give the folder of EditScore's base model")
    config = read_json(base / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in BACKBONES:
        raise UserError(f"EditScore is built on {', '.join(BACKBONES)}; {base} holds a {kind}")
    return BACKBONES[kind]


def load_editscore(base: Path, lora: str | None) -> Scorer:
    """EditScore over a base model's folder and the folder of its LoRA."""
    backbone = backbone_of(base)
    try:
        from editscore import EditScore  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UserError(f"rewards: kind editscore needs its package ({error}): pip install editscore") from error
    scorer: Scorer = EditScore(backbone=backbone, model_name_or_path=str(base), lora_path=lora)
    return scorer
