"""A judge made of a multimodal model, a prompt and a method: requests to questions, answers to scores."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from editr1.config.rewards import JUDGE_DEFAULTS, MethodName, Scale, SourceSize
from editr1.judges.base import MLLM, Answer, Ask, JudgeRequest, ModelJudge, Score, at_edit_size
from editr1.judges.methods import METHODS
from editr1.judges.prompts import Prompt


class MLLMJudge(ModelJudge):
    """Scores edits by the answers of a multimodal model; see `editr1.judges.base.Judge`.

    A score is the weighted mean over the criteria, each the mean over its samples. An edit has no score if a criterion
    has none, and a criterion has none if more than half of its samples cannot be read.

    Args:
        model: The model that answers.
        prompt: The words of the questions.
        method, scale, criteria, samples: See `JudgeConfig`; scores are brought from the scale to [0, 1].
        source_size: See `JudgeConfig`.
        temperature: Sampling temperature.
        max_tokens: Longest answer if the model thinks first.
    """

    def __init__(
        self,
        model: MLLM,
        prompt: Prompt,
        *,
        method: MethodName,
        scale: Scale = JUDGE_DEFAULTS.scale,
        criteria: Mapping[str, float] = JUDGE_DEFAULTS.criteria,
        samples: int = JUDGE_DEFAULTS.samples,
        source_size: SourceSize = JUDGE_DEFAULTS.source_size,
        temperature: float = 1.0,
        max_tokens: int = 512,
    ) -> None:
        super().__init__(model)
        self.prompt, self.scale = prompt, scale
        self.method, self.method_name = METHODS[method], method
        self.criteria = dict(criteria)
        self.samples = samples if self.method.sampled else 1
        self.source_size, self.temperature, self.max_tokens = source_size, temperature, max_tokens

    @property
    def judge_id(self) -> str:
        """Model, method, prompt, and the size of the source if it is not the edit's, in one line."""
        size = "" if self.source_size == "edit" else f":source {self.source_size}"
        return f"{self.model.name}:{self.method_name}:{self.prompt.version}{size}"

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, in their order; all questions are asked at once."""
        shown = at_edit_size(requests) if self.source_size == "edit" else requests
        asks = [ask for request in shown for ask in self.asks(request)]
        answers = iter(self.model.answer(asks))
        return [self._combine(answers) for _ in requests]

    def asks(self, request: JudgeRequest) -> list[Ask]:
        """The questions about one edit; the samples of a criterion are neighbours.

        The seed of a sample follows from the edit, so a score depends on no other request.
        """
        method, content = self.method, zlib.crc32(request.edit.tobytes())
        return [
            Ask(
                self.prompt.parts(request, method.question, criterion, self.scale),
                choices=method.choices(self.scale),
                any_spelling=method.any_spelling,
                max_tokens=method.max_tokens or self.max_tokens,
                temperature=self.temperature if method.sampled else 0.0,
                seed=zlib.crc32(f"{criterion}/{sample}".encode(), content) % 2**31,
            )
            for criterion in self.criteria
            for sample in range(self.samples)
        ]

    def _combine(self, answers: Iterator[Answer]) -> Score:
        """The score of one request; takes the answers to its questions off `answers`."""
        parts = {name: self._criterion(list(islice(answers, self.samples))) for name in self.criteria}
        tokens, seconds = sum(part.tokens for part in parts.values()), sum(part.seconds for part in parts.values())
        if len(parts) == 1:
            return next(iter(parts.values()))
        whole = Score(None, prompt=self.prompt.version, parts=parts, tokens=tokens, seconds=seconds)
        for name, part in parts.items():
            if part.value is None:
                return replace(whole, reason=f"{name}: {part.reason}")
        total = sum(self.criteria.values())
        value = sum(weight * (parts[name].value or 0.0) for name, weight in self.criteria.items()) / total
        return replace(whole, value=value, bound=max(part.bound for part in parts.values()))

    def _criterion(self, answers: Sequence[Answer]) -> Score:
        """Mean over the samples that can be read."""
        scores = [self.method.read(a, self.scale) if a.reason is None else Score(None, a.reason) for a in answers]
        values = [score.value for score in scores if score.value is not None]
        if 2 * len(values) < len(scores) or not values:
            score = next(score for score in scores if score.value is None)
        elif len(scores) == 1:
            score = scores[0]
        else:
            score = Score(sum(values) / len(values), text="\n---\n".join(score.text or "" for score in scores))
        tokens = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers)
        seconds = sum(answer.seconds for answer in answers)
        return replace(score, prompt=self.prompt.version, tokens=tokens, seconds=seconds)
