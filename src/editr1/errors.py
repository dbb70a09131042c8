"""The exception for wrong input, which says how to mend it; lines of warning; short words for errors of libraries; JSON
of strangers.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


NOT_JSON = (ValueError, RecursionError)
"""Errors of `json.loads`: no JSON, an integer of too many digits, or nested too deeply."""
DEEPEST = 50
"""Lists and objects inside each other at most."""
DIGITS = 300
"""Digits of a whole number at most: a float holds it."""
HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that may be half of a character."""
LINE = 800
"""Longest line of a message; one that repeats a long path has its remedy at its end."""


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and how to mend it, in one line.

    The command line prints it without a traceback and exits with code 2. Messages repeat names and words of strangers:
    what is not printable is a "?", and the middle of a long line is left out.

    Args:
        lines: The message; several if several things are wrong.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(_readable, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


def _readable(line: str) -> str:
    gap = " ... "
    short = line if len(line) <= LINE else f"{line[: LINE // 2]}{gap}{line[len(gap) - LINE // 2 :]}"
    return printable(short, LINE)


def tell(text: str) -> None:
    """One line on the error stream, above a progress bar if there is one; of several ranks the main one says it."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"editr1: {text}\n")


@contextmanager
def collect(faults: list[str] | None) -> Iterator[None]:
    """Append the message of a UserError to `faults` instead of raising it; None lets it pass."""
    try:
        yield
    except UserError as error:
        if faults is None:
            raise
        faults.append(str(error))


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without a dot at its end; the error's name if it says nothing.

    What cannot be printed is a "?": words of libraries repeat bytes of the files that they read.
    """
    return printable((str(error).strip() or type(error).__name__).splitlines()[0]).rstrip(".")


def printable(text: str, longest: int = 300) -> str:
    """The first letters of a text, with "?" for what cannot be printed, newlines among them."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:longest])


def first_problem(error: ValidationError) -> str:
    """The first problem of data that pydantic refuses: "place: problem", or the problem alone if it has no place."""
    problem = error.errors()[0]
    where, words = printable(".".join(map(str, problem["loc"]))), problem["msg"].removeprefix("Value error, ")
    return f"{where}: {words}" if where else words


def text_of(path: Path) -> str:
    """The text in a file of a user, without a byte order mark.

    Raises:
        OSError: It cannot be read, or it is a pipe or a device, which may never end.
        ValueError: It is no text, or no name of a file.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("it is no file")
    return path.read_text(encoding="utf-8-sig")


def read_json(path: Path) -> Any:
    """The value in a JSON file; a UserError if it cannot be read, or `parse_json` refuses it."""
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error
    return parse_json(text, str(path))


def parse_json(text: str, where: str, *, allow_nan: bool = False) -> Any:
    """The value that JSON of strangers means; `where` begins the line of an error.

    Python's `json` takes the last of two equal keys, NaN and Infinity, numbers that no float holds, half characters,
    and nests until its stack ends. None of this is read here.

    Args:
        text: The text, such as a line of a file.
        where: Its place, such as the file's name and the line's number.
        allow_nan: Whether NaN and the infinities are numbers, as in our own log of a run that diverged.

    Raises:
        UserError: It is not JSON, a key is there twice in one object, a number is none or too long, the text holds half
            of a character, or it nests too deeply.
    """
    constant = float if allow_nan else _no_number
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=constant, parse_float=_finite, parse_int=_whole
        )
    except NOT_JSON as error:
        raise UserError(f"{where}: not JSON: {first_line(error)}") from error
    if fault := _fault_of(text, value):
        raise UserError(f"{where}: {fault}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise ValueError(f"the key {printable(twice)!r} is there twice; leave one of them")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {printable(text[:20])} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too large")
    return int(text)


def _fault_of(text: str, value: Any) -> str | None:
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        return f"more than {DEEPEST} lists and objects are inside each other"
    if HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "it holds half of a character (a lone surrogate)"
    return None


def _depth(value: Any) -> int:
    """Levels of lists and objects."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
