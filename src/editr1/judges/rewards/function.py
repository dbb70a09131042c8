"""A reward that is Python code of the user's: a function, or a judge."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection
from numbers import Real
from typing import Any

from editr1.config.own_code import load_own, raised
from editr1.errors import UserError, printable
from editr1.judges.base import Judge, JudgeRequest, Score, SingleJudge

WHAT = "reward function"


class FunctionReward(SingleJudge):
    """Calls `function(source, edit, instruction, requirement, task)`, which returns a number in [0, 1], or None.

    A function with a parameter `references` gets the sample's references too, by that name.
    None says that the reward does not apply to the item. A function that would end the process leaves the edit without
    a score. Anything else that it returns is a `UserError`, and an exception is not caught: it is the user's own code,
    and its traceback says where it fails.

    Its name is "pkg.module:function", importable from the current folder too.
    """

    def __init__(self, name: str) -> None:
        self.name, self.function = name, _load_function(name)
        self.takes_references = "references" in _parameters(self.function)

    def score_one(self, request: JudgeRequest) -> Score:
        try:
            return self.read(self.call(request))
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  # such as sys.exit(), which is no end of the run
            return Score(None, f"{self.name} {raised(error)}")

    def call(self, request: JudgeRequest) -> Any:
        """What the function returns for an edit."""
        sample = request.sample
        more = {"references": sample.references} if self.takes_references else {}
        return self.function(sample.source, request.edit, sample.instruction, sample.requirement, sample.task, **more)

    def read(self, value: Any) -> Score:
        """The score that a returned value means; a UserError if it is none."""
        score = as_score(value, self.name)
        if score.value is None and value is not None:
            raise UserError(
                f"reward function {score.reason}; return one, or None for an item that it does not apply to"
            )
        return score


def as_score(value: Any, where: str) -> Score:
    """A number in [0, 1] as a score, None as one that does not apply; anything else as a reason."""
    if value is None:
        return Score(None, f"{where}: gave no score", applies=False)
    if isinstance(value, bool) or not isinstance(value, Real):  # numbers of NumPy are real too
        words = printable(str(value), 40)
        return Score(None, f"{where}: gave {type(value).__name__} {words!r}, not a number in [0, 1]")
    try:
        number = float(value)
    except (ArithmeticError, TypeError, ValueError):  # such as an integer of 400 digits
        number = math.inf
    if not 0 <= number <= 1:  # nor is NaN
        return Score(None, f"{where}: gave {number:g}, not a number in [0, 1]")
    return Score(number)


def open_own_judge(name: str) -> Judge:
    """The judge of the user's own that `name` names, itself or by its class; of a function a `FunctionReward`."""
    own = load_own(name, WHAT)
    judge = own() if isinstance(own, type) else own
    if isinstance(own, type) and not isinstance(judge, Judge):
        raise UserError(f"{WHAT} {name!r} is a class, but not of a judge with `remote` and `score`")
    return judge if isinstance(judge, Judge) else FunctionReward(name)


def _load_function(name: str) -> Callable[..., Any]:
    """The function "pkg.module:function"."""
    function = load_own(name, WHAT)
    if not callable(function):
        kind = type(function).__name__
        raise UserError(f"{WHAT} {name!r} is a {kind}, not a function, nor a judge with `remote` and `score`")
    return function


def _parameters(function: Callable[..., Any]) -> Collection[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some of those that are written in C have none to be read
        return ()
