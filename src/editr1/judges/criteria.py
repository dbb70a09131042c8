"""A judge that asks a multimodal model about criteria: requests to questions, answers to scores."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from editr1.config.formula import Formula
from editr1.config.rewards import JUDGE_DEFAULTS, SourceSize
from editr1.judges.base import MLLM, UNASKED, Answer, Ask, JudgeRequest, ModelJudge, Score, at_edit_size

Counted = Mapping[str, float] | Formula
"""What counts of an edit: criteria and weights, or a formula of criteria."""


class CriteriaJudge(ModelJudge, ABC):
    """Scores edits by the answers of a multimodal model; see `editr1.judges.base.Judge`.

    A score is the weighted mean over the criteria, or the formula of them, each the mean over its samples. An edit has
    no score if a criterion of its task has none, and a criterion has none if more than half of its samples cannot be
    read.

    Args:
        model: The model that answers.
        version: Name and version of the words, as recorded with every score.
        criteria, samples, source_size: See `JudgeConfig`.
        criteria_by_task: Criteria and weights, or a formula, in place of the usual, by task.
        formula: Of the criteria, in place of their weighted mean.
    """

    sampled = False
    """Whether answers are sampled, so that several may be averaged."""
    method_name: str
    """How answers are read, as in `JudgeConfig`."""

    def __init__(
        self,
        model: MLLM,
        version: str,
        *,
        criteria: Mapping[str, float] = JUDGE_DEFAULTS.criteria,
        criteria_by_task: Mapping[str, Counted] | None = None,
        formula: Formula | None = None,
        samples: int = JUDGE_DEFAULTS.samples,
        source_size: SourceSize = JUDGE_DEFAULTS.source_size,
    ) -> None:
        super().__init__(model)
        self.version, self.formula = version, formula
        by_task = criteria_by_task or {}
        self.formulas = {task: counted for task, counted in by_task.items() if isinstance(counted, Formula)}
        self.criteria = _weights(criteria if formula is None else formula)
        self.criteria_by_task = {task: _weights(counted) for task, counted in by_task.items()}
        self.every = dict.fromkeys(name for each in (self.criteria, *self.criteria_by_task.values()) for name in each)
        self.samples = samples if self.sampled else 1
        self.source_size = source_size

    @property
    def judge_id(self) -> str:
        """Model, method, prompt, and the size of the source and the formula if they are not the usual, in one line."""
        size = "" if self.source_size == "edit" else f":source {self.source_size}"
        formula = "" if self.formula is None else f":{self.formula.text}"
        return f"{self.model.name}:{self.method_name}:{self.version}{size}{formula}"

    @property
    def tells_criteria(self) -> bool:
        """Whether a score has its criteria as parts: if it is not that of the only one."""
        return len(self.every) > 1 or self.formula is not None or bool(self.formulas)

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, in their order; all questions are asked at once."""
        shown = at_edit_size(requests) if self.source_size == "edit" else requests
        asks = [ask for request in shown for ask in self.asks(request)]
        answers = iter(self.model.answer(asks))
        return [self._combine(request.sample.task, answers) for request in requests]

    def asks(self, request: JudgeRequest) -> list[Ask]:
        """The questions about one edit; the samples of a question are neighbours.

        The seed of a sample follows from the edit, so a score depends on no other request.
        """
        content = zlib.crc32(request.edit.tobytes())
        return [
            replace(ask, seed=zlib.crc32(f"{names[0]}/{sample}".encode(), content) % 2**31)
            for names in self.questions(request.sample.task)
            for ask in [self.ask(request, names[0])]
            for sample in range(self.samples)
        ]

    def weights(self, task: str) -> Mapping[str, float]:
        """Criteria and weights for the items of a task."""
        return self.criteria_by_task.get(task, self.criteria)

    def formula_of(self, task: str) -> Formula | None:
        """The formula for the items of a task; None for the weighted mean."""
        return self.formulas.get(task) if task in self.criteria_by_task else self.formula

    def questions(self, task: str) -> list[tuple[str, ...]]:
        """The criteria that each question about an item of a task asks for."""
        return [(name,) for name in self.weights(task)]

    @abstractmethod
    def ask(self, request: JudgeRequest, criterion: str) -> Ask:
        """The question about an edit from whose answer a criterion is read, without a seed."""

    @abstractmethod
    def read(self, criterion: str, answer: Answer) -> Score:
        """The score of a criterion in an answer."""

    def _combine(self, task: str, answers: Iterator[Answer]) -> Score:
        """The score of one request; takes the answers to its questions off `answers`."""
        parts: dict[str, Score] = {}
        for names in self.questions(task):
            own = list(islice(answers, self.samples))
            parts |= {name: self._criterion(name, own, first=name == names[0]) for name in names}
        if not self.tells_criteria:
            return next(iter(parts.values()))
        tokens, seconds = sum(part.tokens for part in parts.values()), sum(part.seconds for part in parts.values())
        every = {name: parts.get(name, UNASKED) for name in self.every}
        whole = Score(None, prompt=self.version, parts=every, tokens=tokens, seconds=seconds)
        for name in self.weights(task):
            if parts[name].value is None:
                return replace(whole, reason=f"{name}: {parts[name].reason}")
        value, bound = self._value(task, {name: (part.value or 0.0, part.bound) for name, part in parts.items()})
        return replace(whole, value=value, bound=bound)

    def _value(self, task: str, scores: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
        """Weighted mean or formula of criteria, and its bound, from the value and bound of each."""
        values = {name: value for name, (value, _) in scores.items()}
        if (formula := self.formula_of(task)) is not None:  # it rises in every criterion
            least, greatest = (
                formula.value({name: min(max(v + end * bound, 0.0), 1.0) for name, (v, bound) in scores.items()})
                for end in (-1, 1)
            )
            value = formula.value(values)
            return value, max(greatest - value, value - least)
        weights = self.weights(task)
        mean = sum(weight * values[name] for name, weight in weights.items()) / sum(weights.values())
        return mean, max(bound for _, bound in scores.values())

    def _criterion(self, name: str, answers: Sequence[Answer], first: bool) -> Score:
        """Mean over the samples that can be read; the cost of an answer belongs to the first criterion in it."""
        scores = [self.read(name, each) if each.reason is None else Score(None, each.reason) for each in answers]
        values = [score.value for score in scores if score.value is not None]
        if 2 * len(values) < len(scores) or not values:
            score = next(score for score in scores if score.value is None)
        elif len(scores) == 1:
            score = scores[0]
        else:
            score = Score(sum(values) / len(values), text="\n---\n".join(score.text or "" for score in scores))
        tokens = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers) if first else 0
        seconds = sum(answer.seconds for answer in answers) if first else 0.0
        return replace(score, prompt=self.version, tokens=tokens, seconds=seconds)


def _weights(counted: Counted) -> dict[str, float]:
    """The criteria that are asked about, with their weights; those of a formula have none, and get 1."""
    return dict.fromkeys(counted.names, 1.0) if isinstance(counted, Formula) else dict(counted)
