"""Files of JSON lines that a user wrote: one line after another, and of each what is wrong with it.

Training, `editr1 check` and `editr1 data check` read them by the same function. A file of any length, or with a line
without end, takes little memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from editr1.errors import UserError, collect, parse_json, printable, text_of

Line = TypeVar("Line", bound=BaseModel)
LINE_MAX = 2**20
"""Characters of a line at most."""
KINDS = {"string_too_short": "empty", "empty": "empty", "long": "long", "characters": "characters"}
"""The kind of a fault, by pydantic's; all others are of the form."""


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a line.

    Attributes:
        line: The line's number, from 1.
        kind: What sort of fault it is, in one word or two (docs/data.md lists them).
        message: What is wrong, in words.
    """

    line: int
    kind: str
    message: str


def read_lines(file: Path, kind: type[Line], what: str) -> Iterator[tuple[int, Line | Fault]]:
    """The lines of a file, each with its number, or what is wrong with one, once for each fault.

    Empty lines are left out.

    Raises:
        UserError: The file cannot be read; the message calls it `what`.
    """
    for number, text in enumerate(_texts(file, what), start=1):
        if text is None or text.strip():
            for entry in check_line(number, text, kind):
                yield number, entry


def checked_lines(
    file: Path, kind: type[Line], what: str, faults: list[str] | None = None
) -> Iterator[tuple[int, Line]]:
    """The right lines of a file, each with its number; a message names file, number and first fault of a wrong one.

    If there is a list `faults`, it receives the messages; otherwise the first is raised.
    """
    told = 0
    for number, line in read_lines(file, kind, what):
        if isinstance(line, Fault):
            again, told = number == told, number
            with collect([] if again else faults):
                raise UserError(f"{file}:{number}: {line.message}")
        else:
            yield number, line


def _texts(file: Path, what: str) -> Iterator[str | None]:
    """The lines of a text file without a byte order mark; None for one that is too long.

    A newline of any system ends a line, and nothing else: JSON's texts may hold U+2028 and the like as they are.
    """
    try:
        if file.exists() and not file.is_file():
            raise OSError("it is no file")
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
            yield from _pieces(stream)
    except OSError as error:
        raise UserError(f"cannot read {what} {file}: {error}") from error


def _pieces(stream: TextIO) -> Iterator[str | None]:
    while text := stream.readline(LINE_MAX):
        rest = text
        while len(rest) == LINE_MAX and not rest.endswith("\n"):
            rest = stream.readline(LINE_MAX)
        yield text if rest is text else None


def check_line(number: int, text: str | None, kind: type[Line]) -> list[Line | Fault]:
    """The line, or its faults.

    Args:
        number: Its number.
        text: Its text, with surrogates for bytes that are none; None if it is too long.
        kind: Its form.
    """
    if text is None:
        return [Fault(number, "json", f"it has more than {LINE_MAX:,} characters")]
    try:
        text.encode()
        return [kind.model_validate(parse_json(text.rstrip("\n"), ""))]
    except UnicodeEncodeError:  # what stands for bytes that are no text
        return [Fault(number, "json", "it is not UTF-8; save the file as UTF-8")]
    except UserError as error:
        return [Fault(number, "json", str(error).removeprefix(": "))]
    except ValidationError as error:
        keys = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        return [
            Fault(
                number,
                KINDS.get(problem["type"], "form"),
                f"{printable('.'.join(map(str, problem['loc']))) or 'the line'}: {problem['msg']} (keys: {keys})",
            )
            for problem in error.errors()
        ]


def text_lines(text: str) -> list[str]:
    """The lines of JSONL: only a newline ends one, as JSON's texts may hold U+2028 and the like as they are."""
    return text.split("\n")


def read_text(file: Path, what: str) -> str:
    """A text file that a user wrote, without a byte order mark.

    Raises:
        UserError: It cannot be read; the message calls it `what`.
    """
    try:
        return text_of(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {what} {file}: {error}") from error
