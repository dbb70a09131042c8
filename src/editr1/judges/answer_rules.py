"""How a user's template reads one criterion from an answer: a place in JSON, a regular expression, or score tokens.

An answer that a rule does not fit is no reward, with the reason; it is never a number.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from editr1.errors import NOT_JSON
from editr1.judges.base import Answer, Score
from editr1.judges.scoring import score_first

STEP = re.compile(r"(?:^|\.)([^.\[\]]+)|\[(\d{1,3})\]")
NUMBER = re.compile(r"\s*[-+]?\d{1,300}(?:\.\d+)?\s*", re.ASCII)
SHOWN = 60  # characters of an answer that a reason repeats
Number = Annotated[float, Field(allow_inf_nan=False)]


class AnswerRule(BaseModel):
    """Where the number of a criterion is in an answer, and its range; one of `json`, `regex` and `tokens`.

    Attributes:
        json_place: Place in the object that the answer holds: "score", "scores[0]" or "edit.score". A list of one
            number is that number.
        regex: An expression with one group, which is the number where it first matches.
        tokens: Answers of one token each, worst first; the score is their expected place (Score Logit).
        low: The number that is the reward 0.
        high: The number that is the reward 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    json_place: str | None = Field(default=None, alias="json", min_length=1)
    regex: str | None = Field(default=None, min_length=1)
    tokens: tuple[str, ...] | None = Field(default=None, min_length=2)
    low: Number | None = Field(default=None, alias="min")
    high: Number | None = Field(default=None, alias="max")

    @model_validator(mode="after")
    def _one_rule(self) -> AnswerRule:
        if [self.json_place, self.regex, self.tokens].count(None) != 2:
            raise ValueError("an answer is read by one of json, regex and tokens")
        if self.tokens is not None:
            if (self.low, self.high) != (None, None):
                raise ValueError("tokens are from worst to best; leave min and max out")
            if len({*self.tokens}) != len(self.tokens) or "" in self.tokens:
                raise ValueError("each of the tokens must be another text")
            return self
        if self.low is None or self.high is None or self.low >= self.high or not math.isfinite(self.high - self.low):
            raise ValueError("min and max say from which range of numbers it is mapped; max is the better one")
        if self.json_place is not None and _steps(self.json_place) is None:
            raise ValueError(f"json: {self.json_place!r} is no place such as score, scores[0] or edit.score")
        if self.regex is not None:
            self._pattern(self.regex)
        return self

    def read(self, answer: Answer) -> Score:
        """The score in an answer, or why there is none."""
        if self.tokens is not None:
            return score_first(answer, self.tokens)
        assert self.low is not None and self.high is not None, "they are checked"
        number = _in_json(answer.text, self.json_place) if self.json_place else self._matched(answer.text)
        if isinstance(number, str):
            return Score(None, number, text=answer.text)
        if not self.low <= number <= self.high:
            return Score(None, f"the answer {number:g} is not between {self.low:g} and {self.high:g}", text=answer.text)
        return Score((number - self.low) / (self.high - self.low), text=answer.text)

    def _matched(self, text: str) -> float | str:
        """The number in the group of the expression, or why there is none."""
        match = self._pattern(self.regex or "").search(text)
        if match is None:
            return f"the expression {self.regex!r} is not in the answer: {_shown(text)}"
        if match[1] is None or NUMBER.fullmatch(match[1]) is None:
            return f"the expression {self.regex!r} found no number: {_shown(match[1] or '')}"
        return float(match[1])

    @staticmethod
    def _pattern(regex: str) -> re.Pattern[str]:
        try:
            pattern = re.compile(regex)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"regex: {regex!r} is no expression: {error}") from None
        if pattern.groups != 1:
            raise ValueError(f"regex: {regex!r} has {pattern.groups} groups; give one, around the number")
        return pattern


def _in_json(text: str, place: str) -> float | str:
    """The number at a place of the object that an answer holds, thoughts or a fence around it; or why there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value: Any = json.loads(text[start : end + 1], parse_constant=_no_number)
    except NOT_JSON:
        return f"the answer holds no JSON object: {_shown(text)}"
    for step in _steps(place) or ():
        inside = isinstance(value, dict) if isinstance(step, str) else isinstance(value, list)
        try:
            value = value[step] if inside else None
        except (KeyError, IndexError):
            value = None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"the answer has no number at {place!r}: {_shown(text)}"
    try:
        return float(value)
    except OverflowError:
        return f"the number at {place!r} is too large: {_shown(text)}"


def _steps(place: str) -> list[str | int] | None:
    """A place as keys and indices; None if it is none."""
    matches = [*STEP.finditer(place)]
    if "".join(match[0] for match in matches) != place or place.startswith("."):
        return None
    return [match[1] if match[1] is not None else int(match[2]) for match in matches]


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _shown(text: str) -> str:
    return repr(text.strip()[:SHOWN])[: 2 * SHOWN]  # what is not printable is longer in this form
