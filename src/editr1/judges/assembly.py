"""A judge from its settings and a model that answers, wherever that runs."""

from __future__ import annotations

from editr1.config.rewards import JudgeConfig
from editr1.errors import UserError
from editr1.judges.base import MLLM, Judge
from editr1.judges.mllm import MLLMJudge
from editr1.judges.prompts import Prompt, load_prompt
from editr1.judges.rewards.ranking import RankingJudge


def assemble(settings: JudgeConfig, prompt: Prompt, model: MLLM) -> Judge:
    """The judge that asks `model` in the words of `prompt`."""
    if settings.method == "ranking":
        return RankingJudge(model, source_size=settings.source_size)
    own = {name: getattr(settings, name) for name in ("method", "scale", "criteria", "samples", "source_size")}
    return MLLMJudge(model, prompt, **own)


def open_prompt(settings: JudgeConfig) -> Prompt:
    """The words of a judge; a UserError if there is no such template, or it lacks a criterion."""
    prompt = load_prompt(settings.template, settings.order)
    for criterion in settings.criteria:
        if criterion not in prompt.template.criteria:
            names = ", ".join(prompt.template.criteria)
            raise UserError(f"judge.criteria: the template {prompt.name} has no {criterion!r}; it has {names}")
    return prompt
