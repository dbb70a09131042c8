"""What the rules of a user's template read from answers, and why they read nothing."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from editr1.judges.answer_rules import AnswerRule
from editr1.judges.base import Answer, Position


def rule(**settings: Any) -> AnswerRule:
    return AnswerRule.model_validate({"min": 1, "max": 5, **settings})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"reasoning": "fine", "score": 5}', 1.0),
        ('{"reasoning": "fine", "score": [2]}', 0.25),
        ('```json\n{"score": 3.5}\n```\n', 0.625),
        ('It is good. {"score": 1} Done.', 0.0),
    ],
)
def test_a_number_in_json_is_mapped_from_its_range(text: str, value: float) -> None:
    score = rule(json="score").read(Answer(text))
    assert score.value == value and score.text == text and score.reason is None


@pytest.mark.parametrize(
    ("place", "value"), [("scores[1]", 0.5), ("edit.kept", 0.75), ("edit.all[2][0]", 0.25), ("two words", 1.0)]
)
def test_a_place_in_json_is_keys_and_indices(place: str, value: float) -> None:
    answer = {"scores": [1, 3], "edit": {"kept": 4, "all": [0, 0, [2]]}, "two words": 5}
    assert rule(json=place).read(Answer(json.dumps(answer))).value == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer holds no JSON object: ''"),
        ("Score: 4", "no JSON object"),
        ('{"score": 4,}', "no JSON object"),
        ('{"score": NaN}', "no JSON object"),
        ('{"a": 1} and {"score": 4}', "no JSON object"),
        ("[" * 5000, "no JSON object"),
        ('{"score": ' + "[" * 5000 + "}", "no JSON object"),
        ('{"mark": 4}', "no number at 'score'"),
        ('{"score": "4"}', "no number at 'score'"),
        ('{"score": true}', "no number at 'score'"),
        ('{"score": [4, 4]}', "no number at 'score'"),
        ('{"score": null}', "no number at 'score'"),
        ('{"score": 5.5}', "5.5 is not between 1 and 5"),
        ('{"score": 0}', "0 is not between 1 and 5"),
        ('{"score": 1e999}', "inf is not between"),
        ('{"score": 1%s}' % ("0" * 400), "too large"),
    ],
)
def test_an_answer_that_does_not_fit_is_no_reward_with_a_reason(text: str, reason: str) -> None:
    score = rule(json="score").read(Answer(text))
    assert score.value is None and re.search(reason, score.reason or "") and score.text == text


@pytest.mark.parametrize(
    ("regex", "text", "value"),
    [
        (r"Final Score:\s*([0-9.]+)", "Thoughts. Final Score: 4", 0.75),
        (r"(?s)2\. Image.*?## Score:\s*([0-9.]+)", "1. Text\n## Score: 1.0\n2. Image\n## Score: 3.0", 0.5),
        (r'"score"\s*:\s*\[\s*([\d.]+)', '{\n"score" : [2, 25],\n}', 0.25),
        (r"(?s).*(\d)", "5 apples, so 3", 0.5),
    ],
)
def test_a_regular_expression_reads_its_group_where_it_first_matches(regex: str, text: str, value: float) -> None:
    assert rule(regex=regex).read(Answer(text)).value == value


@pytest.mark.parametrize(
    ("regex", "text", "reason"),
    [
        (r"Score: (\d)", "Score: N/A", "is not in the answer: 'Score: N/A'"),
        (r"Score: (\S+)", "Score: N/A", "found no number: 'N/A'"),
        (r"Score:(?: (\d))?", "Score:", "found no number: ''"),
        (r"Score: (\S+)", "Score: 7", "7 is not between 1 and 5"),
        (r"Score: (\S+)", "Score: nan", "found no number"),
        (r"Score: (\S+)", "Score: ٣", "found no number"),
    ],
)
def test_an_expression_that_finds_no_number_is_no_reward(regex: str, text: str, reason: str) -> None:
    score = rule(regex=regex).read(Answer(text))
    assert score.value is None and reason in (score.reason or "")


def test_score_tokens_are_read_by_their_expected_place() -> None:
    own = AnswerRule.model_validate({"tokens": ["bad", "fair", "good"]})
    logprobs = {"bad": math.log(0.2), "fair": math.log(0.2), "good": math.log(0.6)}
    assert own.read(Answer("good", (Position("good", logprobs),))).value == pytest.approx((0.2 + 2 * 0.6) / 2)
    assert own.read(Answer()).reason == "the answer is empty"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "one of json, regex and tokens"),
        ({"json": "a", "regex": "(a)", "min": 0, "max": 1}, "one of json, regex and tokens"),
        ({"json": "a"}, "min and max say"),
        ({"json": "a", "min": 1, "max": 1}, "min and max say"),
        ({"json": "a", "min": 5, "max": 1}, "min and max say"),
        ({"json": "a", "min": -1.7e308, "max": 1.7e308}, "min and max say"),
        ({"json": "a", "min": 0, "max": math.inf}, "max"),
        ({"json": "", "min": 0, "max": 1}, "json"),
        ({"json": "a..b", "min": 0, "max": 1}, "is no place such as"),
        ({"json": "a[x]", "min": 0, "max": 1}, "is no place such as"),
        ({"json": ".a", "min": 0, "max": 1}, "is no place such as"),
        ({"regex": "a", "min": 0, "max": 1}, "has 0 groups; give one"),
        ({"regex": "(a)(b)", "min": 0, "max": 1}, "has 2 groups"),
        ({"regex": "(", "min": 0, "max": 1}, "is no expression"),
        ({"tokens": ["a"]}, "tokens"),
        ({"tokens": ["a", "a"]}, "each of the tokens"),
        ({"tokens": ["a", "b"], "min": 0}, "leave min and max out"),
        ({"json": "a", "min": 0, "max": 1, "scale": 5}, "scale"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AnswerRule.model_validate(settings)


@given(st.text(), st.sampled_from([{"json": "score"}, {"json": "a[0].b"}, {"regex": "(.)"}, {"regex": r"(?s)(.*)"}]))
def test_any_answer_is_a_reward_in_range_or_none_with_a_reason(text: str, where: dict[str, str]) -> None:
    score = rule(**where).read(Answer(text))
    assert 0 <= score.value <= 1 if score.value is not None else bool(score.reason)


@given(
    st.floats(1, 5), st.text(st.characters(exclude_characters="{}")), st.text(st.characters(exclude_characters="{}"))
)
def test_a_number_is_found_whatever_is_around_its_object(number: float, before: str, after: str) -> None:
    text = f"{before}{json.dumps({'reasoning': before, 'score': number})}{after}"
    assert rule(json="score").read(Answer(text)).value == (number - 1) / 4
    marked = rule(regex=r"#SCORE# (\S+)")
    assert marked.read(Answer(f"{before}#SCORE# {number:.3f}\n{after}")).value == (float(f"{number:.3f}") - 1) / 4


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_any_json_at_the_place_is_a_number_in_range_or_no_reward(value: Any) -> None:
    score = rule(json="score").read(Answer(json.dumps({"score": value})))
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    fits = isinstance(inner, float) and math.isfinite(inner) and 1 <= inner <= 5
    assert score.value == ((inner - 1) / 4 if fits else None)
