"""A judge made of a multimodal model, a prompt and a method."""

from __future__ import annotations

from typing import Any

from editr1.config.rewards import JUDGE_DEFAULTS, MethodName, Scale
from editr1.judges.base import MLLM, Answer, Ask, JudgeRequest, Score
from editr1.judges.criteria import CriteriaJudge
from editr1.judges.methods import METHODS
from editr1.judges.prompts import Prompt


class MLLMJudge(CriteriaJudge):
    """Asks about each criterion in the words of a template, and reads the answer by a method.

    Args:
        model: The model that answers.
        prompt: The words of the questions.
        method, scale: See `JudgeConfig`; scores are brought from the scale to [0, 1].
        temperature: Sampling temperature.
        max_tokens: Longest answer if the model thinks first.
        **settings: As for `CriteriaJudge`.
    """

    def __init__(
        self,
        model: MLLM,
        prompt: Prompt,
        *,
        method: MethodName,
        scale: Scale = JUDGE_DEFAULTS.scale,
        temperature: float = 1.0,
        max_tokens: int = 512,
        **settings: Any,
    ) -> None:
        self.method, self.method_name = METHODS[method], method
        self.sampled = self.method.sampled
        super().__init__(model, prompt.version, **settings)
        self.prompt, self.scale = prompt, scale
        self.temperature, self.max_tokens = temperature, max_tokens

    def ask(self, request: JudgeRequest, criterion: str) -> Ask:
        """The template's question about a criterion."""
        return Ask(
            self.prompt.parts(request, self.method.question, criterion, self.scale),
            choices=self.method.choices(self.scale),
            any_spelling=self.method.any_spelling,
            max_tokens=self.method.max_tokens or self.max_tokens,
            temperature=self.temperature if self.sampled else 0.0,
        )

    def read(self, criterion: str, answer: Answer) -> Score:
        """The score in an answer, by the method."""
        return self.method.read(answer, self.scale)
