"""What a model writes is text of a stranger: it is used only if it is exactly what was asked for.

An answer that is not raises `Rejected` with a reason of a few fixed words, which are counted.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from editr1.data.plain_text import fault_of, plain
from editr1.errors import UserError, parse_json
from editr1.recipe.boxes import Box, clamped
from editr1.recipe.words import Task

TEXT_MAX = 400  # characters of an instruction, and of a requirement
OBJECTS_MAX = 20
UNIT = 1000.0  # right and lower edge of a picture, in the boxes that a model writes
FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)

Form = TypeVar("Form", bound=BaseModel)


class Rejected(Exception):
    """An answer that is not used; the text is the reason."""


def _sentence(text: str) -> str:
    """A text of a sensible length, in one line of printable characters."""
    if not text.isprintable():
        raise ValueError("has control characters")
    if not 3 <= len(text.strip()) <= TEXT_MAX or fault_of(text):
        raise ValueError("is too short or too long")
    return plain(text.strip())


Sentence = Annotated[str, AfterValidator(_sentence)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Written(_Form):
    """An instruction and its requirement."""

    instruction: Sentence
    requirement: Sentence


class WrittenText(Written):
    """As `Written`, with the words that are in the picture, and those that shall be there."""

    old: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]
    new: Annotated[str, Field(min_length=1, max_length=TEXT_MAX)]


class WrittenRequirement(_Form):
    """The requirement of an instruction."""

    requirement: Sentence


class WrittenTask(_Form):
    """The type of an instruction."""

    task: str


class _Object(_Form):
    label: str
    box: Annotated[list[Any], Field(min_length=4, max_length=4)]


class _Objects(_Form):
    objects: list[Any]


def read_written(text: str, task: Task) -> Written:
    """The instruction and requirement in an answer.

    Raises:
        Rejected: The answer holds none, says that there can be none, or they do not say what the task needs.
    """
    content = _json(text)
    if isinstance(content, dict) and "instruction" in content and content["instruction"] is None:
        raise Rejected("no such edit is possible")
    written = _checked(content, WrittenText if task.quotes else Written)
    if task.says not in written.instruction.lower():
        raise Rejected(f"does not say {task.says!r}")
    if isinstance(written, WrittenText):
        _check_quotes(written)
    return written


def read_requirement(text: str) -> str:
    """The requirement in an answer; `Rejected` if there is none."""
    return _checked(_json(text), WrittenRequirement).requirement


def read_task(text: str, names: Collection[str]) -> str:
    """The task in an answer; `Rejected` if it is none of `names`."""
    task = _checked(_json(text), WrittenTask).task
    if task not in names:
        raise Rejected("unknown task")
    return task


def read_objects(text: str) -> tuple[list[Box], int]:
    """The boxes in an answer, and the number of entries that are none; `Rejected` if there is no list of them."""
    entries = _checked(_json(text), _Objects).objects
    boxes = [_box(entry) for entry in entries[:OBJECTS_MAX]]
    good = [box for box in boxes if box is not None]
    return good, len(entries) - len(good)


def _box(entry: Any) -> Box | None:
    try:
        form = _Object.model_validate(entry)
    except ValidationError:
        return None
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in form.box):
        return None
    return clamped(form.label, form.box, UNIT, UNIT)


def _json(text: str) -> Any:
    """The JSON that an answer is, alone or in a fence of Markdown."""
    fenced = FENCE.match(text)
    try:
        return parse_json(fenced[1] if fenced else text, "the answer")
    except UserError as error:
        raise Rejected("not JSON") from error


def _checked(content: Any, kind: type[Form]) -> Form:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "value_error":
            raise Rejected(f"{problem['loc'][0]} {problem['msg'].removeprefix('Value error, ')}") from error
        raise Rejected("other keys or types than asked for") from error


def _check_quotes(written: WrittenText) -> None:
    if written.old.casefold() == written.new.casefold():
        raise Rejected("the words stay the same")
    quoted = [f'"{words}"' for words in (written.old, written.new)]
    if not all(words in written.instruction for words in quoted) or quoted[1] not in written.requirement:
        raise Rejected("does not quote the words")
