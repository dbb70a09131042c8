"""A reward that is a Python function of the user's."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from editr1.errors import UserError, first_line
from editr1.judges.base import JudgeRequest, Score, SingleJudge


class FunctionReward(SingleJudge):
    """Calls `function(source, edit, instruction, requirement, task)`, which returns a number in [0, 1], or None.

    If it raises an error or returns anything else, the edit has no score, with that as the reason.

    Its name is "pkg.module:function", importable from the current folder too.
    """

    def __init__(self, name: str) -> None:
        self.name, self.function = name, load_function(name)

    def score_one(self, request: JudgeRequest) -> Score:
        sample = request.sample
        try:
            value = self.function(sample.source, request.edit, sample.instruction, sample.requirement, sample.task)
        except Exception as error:  # noqa: BLE001  # whatever a user's function raises is a reason, not the run's end
            return Score(None, f"{self.name}: {type(error).__name__}: {first_line(error)[:120]}")
        return as_score(value, self.name)


def as_score(value: Any, where: str) -> Score:
    """A number in [0, 1] as a score; anything else as a reason."""
    if value is None:
        return Score(None, f"{where}: nothing to say")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Score(None, f"{where}: gave {type(value).__name__} {str(value)[:40]!r}, not a number in [0, 1]")
    if not math.isfinite(value) or not 0 <= value <= 1:
        return Score(None, f"{where}: gave {value}, which is not in [0, 1]")
    return Score(float(value))


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
