"""Talks with a multimodal model: each asks some questions, waits for the answers, and asks again, to its result.

Several talks take turns, so that a server has enough to do. With a model in this process there is one at a time: the
size of its batches changes its numbers, and then a talk would depend on the others.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from editr1.devices import pick_device, pick_dtype
from editr1.judges.base import MLLM, Answer, Ask, withdrawing
from editr1.judges.models.local import TransformersModel
from editr1.judges.open import check_tokenizer, open_model, parse_judge

T = TypeVar("T")
Talk = Generator[list[Ask], list[Answer], T]

TOGETHER = 8
"""Talks with a server that take turns."""


def open_writer(text: str) -> MLLM:
    """The model that `--model` names, in the words of `parse_judge`; a UserError if it cannot say yes and no."""
    settings = parse_judge(text, "--model").model_copy(update={"method": "yes_no"})
    device = pick_device("auto")
    model = open_model(settings, device, pick_dtype("auto", device))
    if isinstance(model, TransformersModel):  # a server may not run yet
        check_tokenizer(settings, None, model.processor.tokenizer)
    return model


@dataclass(frozen=True)
class Ended(Generic[T]):
    """The result of a talk, and its name."""

    name: str
    value: T


@dataclass(frozen=True)
class Unanswered:
    """A talk that a missing answer has ended, and why there is none."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    name: str
    talk: Talk[T]
    asks: list[Ask]


def converse(model: MLLM, talks: Iterable[tuple[str, Talk[T]]]) -> Iterator[Ended[T] | Unanswered]:
    """The ends of the talks, by name; those that need fewer turns end earlier.

    A talk is taken from `talks` when there is room for it.
    """
    source, waiting = iter(talks), list[_Waiting[T]]()
    width = TOGETHER if model.remote else 1
    with withdrawing(model):
        while True:
            begun = [_next(name, talk, None) for name, talk in islice(source, width - len(waiting))]
            yield from (state for state in begun if isinstance(state, Ended))
            if not waiting and not begun:
                return
            waiting += [state for state in begun if isinstance(state, _Waiting)]
            answers = iter(model.answer([ask for one in waiting for ask in one.asks]))
            states = [_heard(one, list(islice(answers, len(one.asks)))) for one in waiting]
            waiting = [state for state in states if isinstance(state, _Waiting)]
            yield from (state for state in states if not isinstance(state, _Waiting))


def _heard(one: _Waiting[T], answers: list[Answer]) -> _Waiting[T] | Ended[T] | Unanswered:
    reason = next((answer.reason for answer in answers if answer.reason is not None), None)
    if reason is not None:
        one.talk.close()
        return Unanswered(one.name, reason)
    return _next(one.name, one.talk, answers)


def _next(name: str, talk: Talk[T], answers: list[Answer] | None) -> _Waiting[T] | Ended[T]:
    try:
        asks = next(talk) if answers is None else talk.send(answers)
    except StopIteration as end:
        return Ended(name, end.value)
    return _Waiting(name, talk, asks)
