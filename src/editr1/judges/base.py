"""The two interfaces of judging.

A `Judge` gives each edit a score, or the reason why it has none: a multimodal model by one of the methods, a picture
measure, a function, or a weighted mix of them. An `MLLM` answers questions: a model in this process, or one behind a
server. A method turns requests into questions and answers into scores, and knows neither kind of model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from PIL.Image import Image

from editr1.data.pictures import shrink
from editr1.data.samples import EditSample
from editr1.errors import UserError


@dataclass(frozen=True)
class JudgeRequest:
    """One edit to judge, and the sample that it was made from."""

    sample: EditSample
    edit: Image


@dataclass(frozen=True)
class Score:
    """A reward in [0, 1], or None with the reason why there is none (a failure is never a number).

    Attributes:
        value: The reward.
        reason: Why there is no reward.
        applies: Whether there could be one at all; false if the item or its whole group has none, as without a mask.
            What follows from a single edit, or from a judge that fails, is no such case: an edit could earn what a
            product has in its place.
        probs: Probability of each score token, if the method reads logits.
        bound: Largest error of the value, if a server leaves out the probability of a score token.
        text: The model's answer, if it is more than the score token.
        parts: The scores that are mixed into this one, by name.
        prompt: Name, version and order of the prompt.
        tokens: Tokens that the model reads and writes for this score.
        seconds: Duration of the answer, waiting included.
    """

    value: float | None
    reason: str | None = None
    applies: bool = field(default=True, kw_only=True)
    probs: tuple[float, ...] | None = None
    bound: float = 0.0
    text: str | None = None
    parts: Mapping[str, Score] = field(default_factory=dict)
    prompt: str = ""
    tokens: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)


UNASKED = Score(None)
"""The part of a score that has no weight for the item's task. It has no reason either: nothing is missing."""


@runtime_checkable
class Judge(Protocol):
    """Scores edits: one score per request, in the order of the requests.

    Attributes:
        remote: Whether `score` mostly waits for another machine. It may then be called from several threads at once
            while this process goes on; otherwise it is called from one thread only.
    """

    @property
    def remote(self) -> bool: ...

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]: ...


class Unasked:
    """Stands for the judge of a run that has none: no edit has a score."""

    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """No scores."""
        return [Score(None, "this run has no judge")] * len(requests)


@runtime_checkable
class Closing(Protocol):
    """A judge or a model that waits for another machine; `close` makes it give up and frees those who wait for it.

    The next call starts it again.
    """

    def close(self) -> None: ...


def scores_of(judge: Judge, requests: Sequence[JudgeRequest], name: str = "the judge") -> list[Score]:
    """One score per request.

    Raises:
        UserError: The judge, called `name`, gives more or fewer, or what is no score.
    """
    scores = judge.score(requests)
    if len(scores) != len(requests):
        raise UserError(
            f"{name} gave {len(scores)} scores for {len(requests)} edits; its method `score` must return a list with "
            "one score per request, in their order"
        )
    for score in scores:
        if not isinstance(score, Score) or not (score.value is None or 0 <= score.value <= 1):
            raise UserError(f"{name} gave {score!r}; give Score(value) in [0, 1], or Score(None, reason)")
    return scores


def complete_scores(judge: Judge, requests: Sequence[JudgeRequest]) -> list[Score]:
    """As `scores_of`, for measuring: an edit that lacks a mixed score has none, unless that is optional or not for it.

    The mean of fewer scores cannot be compared with that of all. An interrupt withdraws all questions.
    """
    optional = judge.optional if isinstance(judge, Mixing) else ()

    def complete(score: Score) -> Score:
        parts = {name: part for name, part in score.parts.items() if part is not UNASKED and name not in optional}
        missing = [name for name, part in parts.items() if part.value is None and part.applies]
        if score.value is None or not missing:
            return score
        return replace(score, value=None, reason="; ".join(f"{name}: {score.parts[name].reason}" for name in missing))

    with withdrawing(judge):
        return [complete(score) for score in scores_of(judge, requests)]


def at_edit_size(requests: Sequence[JudgeRequest]) -> list[JudgeRequest]:
    """The requests with sources and references shrunk to the area of their edit.

    A picture that several requests share stays one object, which is shrunk once.
    """
    shrunk: dict[tuple[int, int], Image] = {}

    def fit(image: Image, area: int) -> Image:
        if (id(image), area) not in shrunk:
            shrunk[id(image), area] = shrink(image, area)
        return shrunk[id(image), area]

    fitted = []
    for request in requests:
        sample, area = request.sample, request.edit.width * request.edit.height
        source, references = fit(sample.source, area), tuple(fit(image, area) for image in sample.references)
        fitted.append(replace(request, sample=replace(sample, source=source, references=references)))
    return fitted


def groups_of(requests: Sequence[JudgeRequest]) -> list[list[int]]:
    """The places of the requests of each group: those that share source image and instruction."""
    groups: dict[tuple[int, str], list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault((id(request.sample.source), request.sample.instruction), []).append(place)
    return [*groups.values()]


def compares(judge: object) -> bool:
    """Whether a score depends on the other edits of its group, which are then judged in one place."""
    return bool(getattr(judge, "compares", False))


def close(judge: object) -> None:
    """Withdraw the questions of a judge or a model to servers; does nothing for one that has no server."""
    if isinstance(judge, Closing):
        judge.close()


@contextmanager
def withdrawing(judge: object) -> Iterator[None]:
    """A block of questions to a judge; if it fails or is interrupted, no thread goes on waiting for a server."""
    try:
        yield
    except BaseException:
        close(judge)
        raise


class ModelJudge:
    """A judge that asks one multimodal model, and is as remote as the model."""

    def __init__(self, model: MLLM) -> None:
        self.model = model

    @property
    def remote(self) -> bool:
        """Whether the model runs elsewhere."""
        return self.model.remote

    def close(self) -> None:
        """Withdraw all questions to a server."""
        close(self.model)


class SingleJudge(ABC):
    """A judge in this process that scores one edit after the other, each on its own."""

    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, in their order."""
        return [self.score_one(request) for request in requests]

    @abstractmethod
    def score_one(self, request: JudgeRequest) -> Score:
        """The score of one edit."""


@runtime_checkable
class Mixing(Protocol):
    """A judge that mixes the scores of several by weight; the scores stand in `Score.parts` under the same names.

    Those that are `optional` may be missing.
    """

    @property
    def weights(self) -> Mapping[str, float]: ...

    @property
    def optional(self) -> Collection[str]: ...


@runtime_checkable
class MixingByTask(Mixing, Protocol):
    """As `Mixing`, with weights that differ by task: the one for a task is in `by_task`, by name and task, or usual."""

    @property
    def by_task(self) -> Mapping[str, Mapping[str, float]]: ...


@dataclass(frozen=True)
class Weights:
    """Weights of the scores that a judge mixes.

    Attributes:
        usual: By name.
        by_task: By name and task, where it differs.
    """

    usual: Mapping[str, float]
    by_task: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def of(self, name: str, task: str) -> float:
        """The weight of a score for the items of a task."""
        return self.by_task.get(name, {}).get(task, self.usual[name])


def weights_of(judge: object) -> Weights | None:
    """Weights of the scores that a judge mixes; None for a judge that mixes nothing."""
    if not isinstance(judge, Mixing):
        return None
    return Weights(judge.weights, judge.by_task if isinstance(judge, MixingByTask) else {})


@dataclass(frozen=True)
class Ask:
    """One question to a multimodal model: one user message, one answer.

    Attributes:
        parts: The message's texts and images, in order.
        choices: Answers of one token each whose log-probabilities are read at every position; empty for text alone.
        max_tokens: Longest answer.
        temperature: Sampling temperature; 0 takes the likeliest token.
        seed: Seed of the sampling, if the temperature is above 0.
        any_spelling: Whether a choice counts in all of its `spellings` that are one token; the sum of their
            probabilities is read.
        system: Text of a system message before it; none if it is empty.
    """

    parts: tuple[str | Image, ...]
    choices: tuple[str, ...] = ()
    max_tokens: int = 1
    temperature: float = 0.0
    seed: int = 0
    any_spelling: bool = False
    system: str = ""

    def spellings(self, choice: str) -> tuple[str, ...]:
        """The texts that count as this choice: with capitals, and each after a space too, if any spelling does."""
        if not self.any_spelling:
            return (choice,)
        words = tuple(dict.fromkeys((choice, choice.capitalize(), choice.upper())))
        return (*words, *(f" {word}" for word in words))


@dataclass(frozen=True)
class Position:
    """One token of an answer.

    Attributes:
        token: Its text.
        logprobs: Log-probability (over the whole vocabulary, at temperature 1) of the choices that are known.
        floor: Upper bound of the log-probability of the choices that are not in `logprobs`, and of each spelling in
            `unlisted`.
        unlisted: Number of a choice's spellings that are not in its log-probability, for the choices that have several.
    """

    token: str
    logprobs: Mapping[str, float]
    floor: float = float("-inf")
    unlisted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A model's answer, or the reason why there is none.

    Attributes:
        text: The answer, without special tokens.
        positions: Its tokens one by one, if the question has choices.
        reason: Why there is no answer; None if there is one.
        prompt_tokens: Tokens that the model reads, images included; 0 if a server does not say.
        cached_tokens: How many of these a server has in its prefix cache.
        completion_tokens: Tokens that the model writes.
        seconds: Time from question to answer, waiting included; in this process, the share of a batch's time.
    """

    text: str = ""
    positions: tuple[Position, ...] = ()
    reason: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class MLLM(Protocol):
    """A multimodal model that answers questions: one answer per question, in the order of the questions.

    Attributes:
        name: Name of the model, for records.
        remote: As in `Judge`.
    """

    @property
    def name(self) -> str: ...

    @property
    def remote(self) -> bool: ...

    def answer(self, asks: Sequence[Ask]) -> list[Answer]: ...
