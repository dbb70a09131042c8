"""Requests to questions and answers to scores, on a model that says what the test wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from PIL import Image

from editr1.config.rewards import MethodName
from editr1.data.samples import EditSample
from editr1.judges.base import Answer, Ask, JudgeRequest, Position
from editr1.judges.methods import METHODS
from editr1.judges.mllm import MLLMJudge
from editr1.judges.prompts import load_prompt
from editr1.judges.rewards.ranking import RankingJudge

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


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_shows_the_references_in_every_question(method: MethodName) -> None:
    hat, scarf = Image.new("RGB", (4, 4), "green"), Image.new("RGB", (4, 4), "white")
    several = [replace(one, sample=replace(one.sample, references=(hat, scarf))) for one in REQUESTS]
    model = Scripted(writes("1"))
    MLLMJudge(model, PROMPT, method=method, criteria={"instruction": 1.0, "quality": 1.0}, samples=2).score(several)
    assert len(model.asked) == 3 * 2 * (2 if METHODS[method].sampled else 1)
    for ask in model.asked:
        assert ask.parts[2:6] == ("Reference image 1:", hat, "Reference image 2:", scarf)
        assert ask.parts[6] == "Edited image:" and len(ask.parts) == 9


def pictures_of(
    judge: MLLMJudge | RankingJudge, model: Scripted, requests: Sequence[JudgeRequest]
) -> list[Image.Image]:
    """The pictures before the first edit, of every question."""
    judge.score(requests)
    return [part for ask in model.asked for part in ask.parts[: ask.parts.index(EDIT)] if isinstance(part, Image.Image)]


EDIT = Image.new("RGB", (40, 20), "red")


@pytest.mark.parametrize("kind", [MLLMJudge, RankingJudge])
def test_source_and_references_are_shown_at_the_area_of_the_edit_and_shrunk_once(kind: type) -> None:
    own = {"prompt": PROMPT, "method": "score_logit"} if kind is MLLMJudge else {}
    photo, small, wide = (Image.new("RGB", size, "blue") for size in ((3000, 2000), (8, 4), (1600, 400)))
    sample = EditSample("", photo, "edit", references=(small, wide))
    requests = [JudgeRequest(sample, EDIT) for _ in range(3)]
    model = Scripted(sure_of("1"))
    shown = pictures_of(kind(model, **own), model, requests)
    assert len(shown) >= 9 and len({id(image) for image in shown}) == 3  # one object each, so a server gets it once
    source, one, two = shown[:3]
    assert source.size == (35, 23) and one is small and two.size == (57, 14)  # 805 and 798 of 800 pixels
    assert sample.source is photo
    model = Scripted(sure_of("1"))
    originals = pictures_of(kind(model, **own, source_size="original"), model, requests)
    assert originals[0] is photo and originals[2] is wide


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (10, 20)])
def test_a_source_that_is_no_larger_than_the_edit_is_shown_as_it_is(size: tuple[int, int]) -> None:
    source, model = Image.new("RGB", size), Scripted(sure_of("1"))
    judge = MLLMJudge(model, PROMPT, method="score_logit")
    assert pictures_of(judge, model, [JudgeRequest(EditSample("", source, "edit"), EDIT)]) == [source]
    assert model.asked[0].parts[1] is source


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
