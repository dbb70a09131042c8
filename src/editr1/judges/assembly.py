"""A judge from its settings and a model that answers, wherever that runs."""

from __future__ import annotations

from editr1.config.formula import parse_formula
from editr1.config.rewards import JudgeConfig
from editr1.errors import UserError
from editr1.judges.base import MLLM, Judge
from editr1.judges.critic import CriticJudge, CriticPrompt, load_critic
from editr1.judges.methods import METHODS
from editr1.judges.mllm import MLLMJudge
from editr1.judges.prompts import Prompt, load_prompt
from editr1.judges.rewards.ranking import RankingJudge

Words = Prompt | CriticPrompt | None
"""What a judge asks in; None for ranking, which has words of its own."""


def assemble(settings: JudgeConfig, words: Words, model: MLLM) -> Judge:
    """The judge that asks `model` in these words."""
    if words is None:
        return RankingJudge(model, source_size=settings.source_size)
    own = {name: getattr(settings, name) for name in ("criteria", "samples", "source_size")}
    own["formula"] = None if settings.formula is None else parse_formula(settings.formula)
    own["criteria_by_task"] = {
        task: parse_formula(counted) if isinstance(counted, str) else counted
        for task, counted in settings.criteria_by_task.items()
    }
    if isinstance(words, CriticPrompt):
        return CriticJudge(model, words, **own)
    assert settings.method in METHODS, "the others have other words"
    return MLLMJudge(model, words, method=settings.method, scale=settings.scale, **own)


def open_words(settings: JudgeConfig) -> Words:
    """The words of a judge; a UserError if there is no such template, or it lacks a criterion."""
    if settings.method == "ranking":
        return None
    words: Prompt | CriticPrompt
    if settings.method == "template":
        words = load_critic(settings.template)
        name, known = words.version, [*words.criteria]
    else:
        words = load_prompt(settings.template, settings.order)
        name, known = words.name, [*words.template.criteria]
    for place, criterion in settings.named:
        if criterion not in known:
            raise UserError(f"judge.{place}: the template {name} has no {criterion!r}; it has {', '.join(known)}")
    return words


def choices_of(settings: JudgeConfig, words: Words) -> list[tuple[tuple[str, ...], bool]]:
    """The answers of one token each whose probabilities a judge reads, and whether any spelling of them counts."""
    if isinstance(words, CriticPrompt):
        return [(words.criteria[name].choices, False) for name in settings.asked]
    if words is None or settings.method not in METHODS:
        return []
    method = METHODS[settings.method]
    return [(method.choices(settings.scale), method.any_spelling)]
