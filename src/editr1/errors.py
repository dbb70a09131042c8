"""The one exception that means "the input is wrong, and here is how to mend it", and words for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and how to mend it, in one line.

    The command line prints it without a traceback and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without a dot at its end; the error's name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")


def first_problem(error: ValidationError) -> str:
    """What is wrong first in data that pydantic refused: "place: problem", without a place that is the whole."""
    told = error.errors()[0]
    where, problem = ".".join(map(str, told["loc"])), told["msg"].removeprefix("Value error, ")
    return f"{where}: {problem}" if where else problem
