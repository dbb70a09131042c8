"""A reward that is a Python function of the user's."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score, SingleJudge


class FunctionReward(SingleJudge):
    """Calls `function(source, edit, instruction, requirement, task)`, which returns a number in [0, 1], or None.

    A function with a parameter `references` gets the sample's references too, by that name.
    None leaves the edit without a score. Anything else that it returns is a `UserError`, and what it raises is not
    caught: it is the user's own code, and its traceback says where it fails.

    Its name is "pkg.module:function", importable from the current folder too.
    """

    def __init__(self, name: str) -> None:
        self.name, self.function = name, load_function(name)
        self.takes_references = "references" in inspect.signature(self.function).parameters

    def score_one(self, request: JudgeRequest) -> Score:
        sample = request.sample
        more = {"references": sample.references} if self.takes_references else {}
        value = self.function(sample.source, request.edit, sample.instruction, sample.requirement, sample.task, **more)
        score = as_score(value, self.name)
        if score.value is None and value is not None:
            raise UserError(f"reward function {score.reason}; return one, or None for an edit that it cannot score")
        return score


def as_score(value: Any, where: str) -> Score:
    """A number in [0, 1] as a score; anything else as a reason."""
    if value is None:
        return Score(None, f"{where}: nothing to say")
    if isinstance(value, bool) or not isinstance(value, Real):  # numbers of NumPy are real too
        return Score(None, f"{where}: gave {type(value).__name__} {str(value)[:40]!r}, not a number in [0, 1]")
    try:
        number = float(value)
    except (ArithmeticError, TypeError, ValueError):  # such as an integer of 400 digits
        number = math.inf
    if not 0 <= number <= 1:  # nor is NaN
        return Score(None, f"{where}: gave {number:g}, not a number in [0, 1]")
    return Score(number)


def load_function(name: str) -> Callable[..., Any]:
    """The function "pkg.module:function"."""
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise UserError(f"reward function {name!r}: write it as pkg.module:function")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does
        sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(f"reward function {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise UserError(f"reward function {name!r} is a {type(function).__name__}, not a function")
    return function
