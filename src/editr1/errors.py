"""The exception for wrong input, which says how to mend it, and short words for errors of libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


NOT_JSON = (ValueError, RecursionError)
"""Errors of `json.loads`: no JSON, an integer of too many digits, or nested too deeply."""


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and how to mend it, in one line.

    The command line prints it without a traceback and exits with code 2.
    """


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


def printable(text: str) -> str:
    """The first 300 letters of a text, with "?" for what cannot be printed, newlines among them."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


def first_problem(error: ValidationError) -> str:
    """The first problem of data that pydantic refuses: "place: problem", or the problem alone if it has no place."""
    problem = error.errors()[0]
    where, words = printable(".".join(map(str, problem["loc"]))), problem["msg"].removeprefix("Value error, ")
    return f"{where}: {words}" if where else words
