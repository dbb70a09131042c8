"""Requests to questions and answers to scores, on a model that says what the test wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from PIL import Image

from editr1.config.settings import MethodName
from editr1.data.samples import EditSample
from editr1.judges.base import Answer, Ask, JudgeRequest, Position
from editr1.judges.methods import METHODS
from editr1.judges.mllm import MLLMJudge
from editr1.judges.prompts import load_prompt

PROMPT = load_prompt("full", "paper")
REQUESTS = [
    JudgeRequest(EditSample("", Image.new("RGB", (4, 4)), f"edit {i}"), Image.new("RGB", (4, 4), (i, 0, 0)))
    for i in range(3)
]


@dataclass
class Scripted:
    """Answers by a function of the question."""

    say: Callable[[Ask], Answer]
    asked: list[Ask] = field(default_factory=list)
    name: str = "scripted"
    remote: bool = False

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        self.asked += asks
        return [self.say(ask) for ask in asks]


def sure_of(choice: str) -> Callable[[Ask], Answer]:
    def say(ask: Ask) -> Answer:
        logprobs = dict.fromkeys(ask.choices, -60.0) | {choice: 0.0}
        return Answer(choice, (Position(choice, logprobs),), prompt_tokens=10, completion_tokens=1)

    return say


def writes(text: str) -> Callable[[Ask], Answer]:
    return lambda ask: Answer(text, prompt_tokens=10, completion_tokens=len(text.split()))


THOUGHTS = [("Red", {}), (".", {}), (" Score", {}), (":", {}), (" ", {}), ("2", {"2": 0.0, "4": 0.0})]


def thinks(ask: Ask) -> Answer:
    positions = tuple(Position(token, dict.fromkeys(ask.choices, -60.0) | probs) for token, probs in THOUGHTS)
    return Answer("".join(token for token, _ in THOUGHTS), positions)


@pytest.mark.parametrize(
    ("method", "say", "value"),
    [
        ("score_logit", sure_of("4"), 0.8),
        ("yes_no", sure_of("yes"), 1.0),
        ("score_sampling", writes("3"), 0.6),
        ("cot_sampling", writes("There are 4 cats.\nScore: 1"), 0.2),
        ("cot_logit", thinks, 0.6),
    ],
)
def test_every_method_reads_its_answer(method: MethodName, say: Callable[[Ask], Answer], value: float) -> None:
    model = Scripted(say)
    scores = MLLMJudge(model, PROMPT, method=method).score(REQUESTS)
    assert [score.value for score in scores] == pytest.approx([value] * 3)
    assert {score.prompt for score in scores} == {"full-1/paper"}
    assert [ask.parts[3] for ask in model.asked] == [request.edit for request in REQUESTS]
    sampled = METHODS[method].sampled
    assert {ask.temperature for ask in model.asked} == {1.0 if sampled else 0.0}


def test_another_scale_is_brought_to_zero_and_one() -> None:
    judge = MLLMJudge(Scripted(sure_of("7")), PROMPT, method="score_logit", scale=(1, 9))
    assert judge.score(REQUESTS[:1])[0].value == pytest.approx(6 / 8)
    assert judge.asks(REQUESTS[0])[0].choices == tuple("123456789")


def test_criteria_are_weighed_and_one_that_fails_leaves_no_reward() -> None:
    def say(ask: Ask) -> Answer:
        return sure_of("5" if "free of seams" in str(ask.parts[-1]) else "2")(ask)

    judge = MLLMJudge(Scripted(say), PROMPT, method="score_logit", criteria={"instruction": 3.0, "quality": 1.0})
    (score,) = judge.score(REQUESTS[:1])
    assert score.value == pytest.approx((3 * 0.4 + 1 * 1.0) / 4)
    assert {name: part.value for name, part in score.parts.items()} == pytest.approx({"instruction": 0.4, "quality": 1})
    assert score.tokens == 22

    def fail(ask: Ask) -> Answer:
        return Answer(reason="HTTP 503") if "free of seams" in str(ask.parts[-1]) else say(ask)

    (score,) = MLLMJudge(
        Scripted(fail), PROMPT, method="score_logit", criteria={"instruction": 3.0, "quality": 1.0}
    ).score(REQUESTS[:1])
    assert (score.value, score.reason) == (None, "quality: HTTP 503")


def test_samples_are_averaged_over_those_that_can_be_read_if_they_are_half_of_them() -> None:
    said = {0: "1", 1: "4", 2: "none", 3: "2"}
    judge = MLLMJudge(Scripted(writes("")), PROMPT, method="score_sampling", samples=4)
    seeds = {ask.seed: i for i, ask in enumerate(judge.asks(REQUESTS[0]))}
    assert len(seeds) == 4
    judge.model = Scripted(lambda ask: Answer(said[seeds[ask.seed]]))
    assert judge.score(REQUESTS[:1])[0].value == pytest.approx((1 + 4 + 2) / 3 / 5)
    said.update({0: "?", 1: "?"})
    (score,) = judge.score(REQUESTS[:1])
    assert score.value is None and "holds 0 numbers" in str(score.reason)


def test_a_score_does_not_depend_on_its_neighbours() -> None:
    judge = MLLMJudge(Scripted(writes("1")), PROMPT, method="cot_sampling", samples=2)
    alone = judge.asks(REQUESTS[1])
    judge.score(REQUESTS)
    assert isinstance(judge.model, Scripted)
    assert judge.model.asked[2:4] == alone


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("answer", [Answer(reason="timeout"), Answer(), Answer("5 of 7 or 2")])
def test_what_cannot_be_read_is_never_a_number(method: MethodName, answer: Answer) -> None:
    (score,) = MLLMJudge(Scripted(lambda ask: answer), PROMPT, method=method).score(REQUESTS[:1])
    assert score.value is None and score.reason


def test_a_logit_that_is_not_a_number_is_no_reward() -> None:
    def say(ask: Ask) -> Answer:
        return Answer("3", (Position("3", dict.fromkeys(ask.choices, math.nan)),))

    (score,) = MLLMJudge(Scripted(say), PROMPT, method="score_logit").score(REQUESTS[:1])
    assert (score.value, score.reason) == (None, "a logit of a score token is not finite")
