"""Any bytes that a server answers with are a reward in range, or a missing reward with a reason, in every method."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, get_args

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editr1.config.rewards import MethodName
from editr1.judges.base import Score
from editr1.judges.critic import CriticJudge, CriticPrompt, CriticTemplate
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.wire import Reply, Wire
from editr1.judges.rewards.http import HttpReward
from tests.hostile.test_servers import JSON, PROMPT, REQUEST, changed, chat
from tests.judges.client import client

WORDS = ("3", "Score: 3", "yes", " no", "Yes", "think\nScore: 5", "Score: 9", "Score: -1", "5/5", "٣", "1e9", "4.5", "")
KINDS = st.sampled_from(["application/json", "text/json; charset=utf-7", "json", "text/html", ""])
STATUSES = st.sampled_from([200] * 8 + [201, 204, 400, 401, 404, 408, 422, 429, 500, 503, 599])
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def mutated(draw: Any, content: bytes) -> bytes:
    """The bytes with some of them replaced, left out or repeated."""
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(damaged)))
        damaged[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(damaged)


def body(draw: Any, right: Any) -> bytes:
    """A right answer with something else in it, its bytes with damage, or whatever."""
    how = draw(st.sampled_from(["changed", "changed", "damaged", "tree", "bytes"]))
    if how == "bytes":
        return draw(st.binary())
    if how == "damaged":
        return mutated(draw, json.dumps(right).encode())
    value = draw(JSON) if how == "tree" else changed(draw, right)
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def reply(draw: Any, right: Any) -> Reply:
    headers = {"content-type": draw(KINDS), "retry-after": draw(st.sampled_from(["0", "-1", "nan", "x", ""]))}
    return Reply(draw(STATUSES), httpx.Headers(headers), body(draw, right))


def answers(patch: pytest.MonkeyPatch, draw: Any, right: Any) -> None:
    """From now on, every server answers with whatever is drawn."""
    replies = [reply(draw, right) for _ in range(2)]

    async def receive(self: Wire, url: str, question: dict[str, Any]) -> Reply:
        replies.append(replies.pop(0))
        return replies[0]

    patch.setattr(Wire, "_receive", receive)


def moves_the_cursor(letter: str) -> bool:
    """Whether a letter is a control character, ends a line, turns the direction of writing, or cannot be written."""
    turns = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in turns


def check(score: Score) -> None:
    if score.value is None:
        assert score.reason
    else:
        assert 0 <= score.value <= 1
    assert len(score.reason or "") <= 300 and not any(map(moves_the_cursor, score.reason or ""))
    json.dumps([score.value, score.reason, score.text], allow_nan=False)


@many
@given(st.data())
@pytest.mark.parametrize("method", get_args(MethodName))
def test_any_answer_is_a_score_in_range_or_none_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, method: MethodName, data: st.DataObject
) -> None:
    words = data.draw(st.sampled_from(WORDS))
    tokens = [{"token": words, "logprob": -0.5, "top_logprobs": [{"token": words, "logprob": -0.5}]}]
    right = data.draw(st.sampled_from([chat(), chat(message={"content": words}, logprobs={"content": tokens})]))
    answers(monkeypatch, data.draw, right)
    with client("http://127.0.0.1:9/v1", tries=1, backoff=0.0) as model:
        scores = MLLMJudge(model, PROMPT, method=method, samples=1 if method in ("score_logit", "yes_no") else 2).score(
            [REQUEST]
        )
    for score in scores:
        check(score)


@many
@given(st.data())
@pytest.mark.parametrize(
    "rule",
    [
        {"json": "score", "min": 0, "max": 5},
        {"json": "a[0].b", "min": 0, "max": 5},
        {"regex": r"Score: (\S+)", "min": 0, "max": 5},
        {"tokens": ["no", "yes"]},
    ],
)
def test_any_answer_is_a_score_by_a_templates_rule_or_none_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], data: st.DataObject
) -> None:
    question = {"message": [{"image": "edit"}, "Good?"], "answers": {"good": rule}}
    template = CriticTemplate.model_validate({"version": "1", "questions": [question], "max_tokens": 4})
    words = data.draw(
        st.sampled_from([*WORDS, '{"score": 3}', '{"score": [9]}', '{"a": [{"b": 1}]}', '{"score": NaN}'])
    )
    answers(monkeypatch, data.draw, data.draw(st.sampled_from([chat(), chat(message={"content": words})])))
    with client("http://127.0.0.1:9/v1", tries=1, backoff=0.0) as model:
        (score,) = CriticJudge(model, CriticPrompt(template, "own"), criteria={"good": 1.0}).score([REQUEST])
    check(score)


@many
@given(st.data())
def test_any_answer_of_a_service_is_a_score_in_range_or_none_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    answers(monkeypatch, data.draw, {"score": data.draw(st.floats() | JSON), "reason": data.draw(JSON)})
    reward = HttpReward("http://127.0.0.1:9/score", tries=1, backoff=0.0)
    (score,) = reward.score([REQUEST])
    reward.close()
    check(score)
