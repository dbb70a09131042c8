"""What a judge is: edits in, one score or one reason for having none out. And what a judge asks of a model.

Two interfaces. A `Judge` scores edits: a multimodal model by one of the methods, a picture measure, a function, a
weighted mix of them. An `MLLM` answers questions: a model in this process, or one behind a server. A method turns
requests into questions and answers into scores, and knows neither kind of model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from PIL.Image import Image

from editr1.data.samples import EditSample


@dataclass(frozen=True)
class JudgeRequest:
    """One edit to be judged, and what was asked of the editor."""

    sample: EditSample
    edit: Image


@dataclass(frozen=True)
class Score:
    """A reward in [0, 1], or None with the reason why there is none (a failure is never a number).

    Attributes:
        value: the reward.
        reason: why there is none.
        probs: probability of each score token, where the method reads logits.
        bound: how far the value may be off, where a server did not tell every score token's probability.
        text: what the model wrote, where it wrote more than the score token.
        parts: the scores that were mixed into this one, by name.
        prompt: name, version and order of the words that the judge was asked with.
        tokens: that the model read and wrote for this score.
        seconds: that the answer took, waiting included.
    """

    value: float | None
    reason: str | None = None
    probs: tuple[float, ...] | None = None
    bound: float = 0.0
    text: str | None = None
    parts: Mapping[str, Score] = field(default_factory=dict)
    prompt: str = ""
    tokens: int = field(default=0, compare=False)
    seconds: float = field(default=0.0, compare=False)


class Judge(Protocol):
    """Scores edits; results stand in the order of the requests, one each.

    Attributes:
        remote: `score` mostly waits for another machine, so it may be called from several threads at once while this
            process goes on; else it is called from one thread only.
    """

    @property
    def remote(self) -> bool: ...

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]: ...


@runtime_checkable
class Closing(Protocol):
    """A judge or a model that waits for another machine, and can be told to give up: whoever waits is let go."""

    def close(self) -> None: ...


def close(asked: object) -> None:
    """Withdraw what is asked of a server; nothing where `asked` waits for none."""
    if isinstance(asked, Closing):
        asked.close()


@runtime_checkable
class Mixing(Protocol):
    """A judge that mixes the scores of several by weight; the scores stand in `Score.parts` under the same names."""

    @property
    def weights(self) -> Mapping[str, float]: ...


def weights_of(judge: object) -> Mapping[str, float]:
    """Weight of each score that a judge mixes, by name; empty for a judge that mixes nothing."""
    return judge.weights if isinstance(judge, Mixing) else {}


@dataclass(frozen=True)
class Ask:
    """One question to a multimodal model: one user message, one answer.

    Attributes:
        parts: the message's texts and images, in order.
        choices: answers, one token each, whose log-probabilities are wanted at every position of the answer; none for
            text alone.
        max_tokens: longest answer.
        temperature: 0 takes the likeliest token.
        seed: of the sampling, where the temperature is above 0.
    """

    parts: tuple[str | Image, ...]
    choices: tuple[str, ...] = ()
    max_tokens: int = 1
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Position:
    """One token of an answer.

    Attributes:
        token: its text.
        logprobs: log-probability (over the whole vocabulary, at temperature 1) of the choices that are known.
        floor: no choice that is not in `logprobs` is likelier than this.
    """

    token: str
    logprobs: Mapping[str, float]
    floor: float = float("-inf")


@dataclass(frozen=True)
class Answer:
    """What a model answered, or the reason why it did not.

    Attributes:
        text: the answer, without special tokens.
        positions: its tokens one by one, where the question had choices.
        reason: why there is no answer; None where there is one.
        prompt_tokens: read by the model, images included; 0 where a server does not say.
        cached_tokens: of these, how many a server had in its prefix cache.
        completion_tokens: written.
        seconds: from question to answer, waiting included; in this process, the share of a batch's time.
    """

    text: str = ""
    positions: tuple[Position, ...] = ()
    reason: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class MLLM(Protocol):
    """A multimodal model that answers questions; answers stand in the order of the questions, one each.

    Attributes:
        name: of the model, for records.
        remote: as of `Judge`.
    """

    @property
    def name(self) -> str: ...

    @property
    def remote(self) -> bool: ...

    def answer(self, asks: Sequence[Ask]) -> list[Answer]: ...
