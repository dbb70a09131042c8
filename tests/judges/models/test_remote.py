"""The chat client against a real server: what is sent, what is read, and that no failure becomes a number."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import socket
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from editr1.config.rewards import JudgeConfig
from editr1.errors import UserError
from editr1.judges.base import Answer, Ask
from editr1.judges.models.remote import OpenAIModel
from editr1.judges.scoring import NO_YES
from tests.judges.client import DIGITS, client, remote_model, without_time
from tests.judges.fault_server import (
    BODY_FAULTS,
    FIRST_ID,
    VOCABULARY,
    WIRE_FAULTS,
    FaultServer,
    always,
    logprobs_of,
    never,
    share,
    times,
)

KEY = "sk-planted-0123456789"
HTTP_FAULTS = ("http_408", "http_429", "http_500", "http_502", "http_503", "http_504")
FAULTS = (*HTTP_FAULTS, *WIRE_FAULTS, *BODY_FAULTS)
WORDS = {  # what a reason must say, where it is not the status
    "reset": "no answer", "hang_up": "disconnected", "hang": "timeout", "drip": "timeout", "cut_body": "no answer",
    "no_http": "no answer", "cut_json": "JSON is damaged", "wrong_type": "content type 'text/plain'",
    "html": "content type 'text/html'", "empty": "JSON is damaged", "no_utf8": "JSON is damaged",
    "bad_gzip": "it is compressed (gzip)", "error_200": "no choices", "list": "no choices", "null": "no choices",
    "no_choices": "no choices", "null_message": "no choices", "null_content": "no content", "aborted": "abort",
    "null_logprobs": "no logprobs", "no_positions": "no logprobs", "few_positions": "the text is longer",
    "null_top": "logprobs are missing", "empty_top": "is empty", "nan": "nan", "infinite": "-inf", "positive": "0.7",
    "placeholder": "-9999", "null_logprob": "None", "text_logprob": "'-1.5'", "true_logprob": "True",
}  # fmt: skip


def pictures(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def asks(count: int, max_tokens: int = 1) -> list[Ask]:
    source, *edits = pictures(count + 1)
    return [Ask((source, "then", edit, "how good?"), choices=DIGITS, max_tokens=max_tokens) for edit in edits]


@pytest.fixture(scope="module")
def right() -> list[Answer]:
    """Answers of a server without faults: one token each, then three tokens each."""
    with FaultServer() as server, client(server.url) as model:
        answers = without_time(model.answer(asks(4) + asks(4, max_tokens=3)))
    assert all(answer.reason is None for answer in answers)
    return answers


def test_a_message_holds_texts_and_images_in_order_and_its_digits_are_exact() -> None:
    with FaultServer() as server, client(server.url) as model:
        (answer,) = model.answer(asks(1))
    (body,) = server.bodies
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("test", 1, 0.0, 0)
    assert (body["logprobs"], body["top_logprobs"], body["logprob_token_ids"]) == (True, 20, [*range(100, 106)])
    assert "Authorization" not in server.headers[0]
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text", "image_url", "text"]
    assert [part.get("text") for part in content] == [None, "then", None, "how good?"]
    for part, picture in zip(content[::2], pictures(2), strict=True):
        kind, data = part["image_url"]["url"].split(",")
        assert kind == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(picture))
    expected = logprobs_of(json.dumps([content, {}, 0]))
    assert answer.positions[0].logprobs == {str(digit): expected[digit] for digit in range(6)}
    assert answer.positions[0].floor == -math.inf
    assert (answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens) == (7, 3, 1)
    assert answer.seconds > 0


def test_text_alone_is_asked_without_logprobs_and_drawn_with_its_seed() -> None:
    with FaultServer(mode="plain") as server, client(server.url, jpeg_quality=90) as model:
        (answer,) = model.answer([Ask((pictures(1)[0], "say"), max_tokens=3, temperature=0.7, seed=5)])
    assert answer.reason is None and len(answer.text.split()) == 3 and answer.positions == ()
    assert server.bodies[0]["seed"] == 5 and server.bodies[0]["temperature"] == 0.7
    assert "logprobs" not in server.bodies[0] and server.tokenized == 0
    assert server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("mode", ["plain", "ignores", "refuses"])
def test_a_server_without_named_tokens_leaves_unlisted_digits_out_with_a_true_bound(
    mode: str, right: list[Answer], caplog: pytest.LogCaptureFixture
) -> None:
    with FaultServer(mode=mode) as server, client(server.url, top_logprobs=6) as model:
        answers = model.answer(asks(4))
        again = model.answer(asks(4))
    assert without_time(answers) == without_time(again)
    assert all("logprob_token_ids" not in body for body in server.bodies[-4:])
    assert len([record for record in caplog.records if "likeliest tokens" in record.message]) == 1
    missing = 0
    for answer, exact in zip(answers, right, strict=False):
        listed, truth = answer.positions[0], exact.positions[0].logprobs
        assert listed.logprobs.items() <= truth.items()
        absent = truth.keys() - listed.logprobs.keys()
        missing += len(absent)
        assert all(truth[digit] <= listed.floor for digit in absent)
    assert missing


WORDS_OF = {"no": ["no", " no", " NO"], "yes": ["yes", "Yes"]}  # what the server's vocabulary has of each


@pytest.mark.parametrize("mode", ["exact", "ignores"])
def test_words_are_the_sum_of_their_spellings_and_those_that_a_list_leaves_out_are_bounded(mode: str) -> None:
    asked = [replace(ask, choices=NO_YES, any_spelling=True) for ask in asks(4)]
    with FaultServer(mode=mode) as server, client(server.url, top_logprobs=20) as model:
        answered = [(*model.answer([ask]), server.bodies[-1]) for ask in asked]
    assert server.tokenized == 12  # six spellings of each
    for answer, body in answered:
        truth = dict(zip(VOCABULARY, logprobs_of(json.dumps([body["messages"][0]["content"], {}, 0])), strict=True))
        exact = {word: float(np.logaddexp.reduce([truth[name] for name in some])) for word, some in WORDS_OF.items()}
        (position,) = answer.positions
        if mode == "exact":
            assert dict(position.logprobs) == pytest.approx(exact) and position.floor == -math.inf
            assert set(body["logprob_token_ids"]) == {
                FIRST_ID + VOCABULARY.index(name) for some in WORDS_OF.values() for name in some
            }
            continue
        likeliest = sorted(truth, key=truth.__getitem__)[-20:]
        for word, some in WORDS_OF.items():
            listed = [truth[name] for name in some if name in likeliest]
            assert position.unlisted[word] == 6 - len(listed)
            low = position.logprobs.get(word, -math.inf)
            assert low == pytest.approx(np.logaddexp.reduce([-math.inf, *listed]))
            assert math.exp(exact[word]) <= math.exp(low) + (6 - len(listed)) * math.exp(position.floor)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_passes_changes_no_answer(kind: str, right: list[Answer]) -> None:
    timeout = 0.3 if kind in ("hang", "drip") else 20.0
    with FaultServer(times(kind, 3)) as server, client(server.url, timeout=timeout) as model:
        assert without_time(model.answer(asks(4) + asks(4, max_tokens=3))) == right
        assert server.chats == 11


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_stays_is_the_reason(kind: str) -> None:
    timeout = 0.1 if kind in ("hang", "drip") else 20.0
    with FaultServer(always(kind)) as server, client(server.url, timeout=timeout, tries=2) as model:
        answers = model.answer(asks(2, max_tokens=3))
    for answer in answers:
        assert replace(answer, reason=None, seconds=0.0) == Answer()
        assert answer.reason is not None and len(answer.reason) <= 200
        assert f"from 127.0.0.1:{server.port} after 2 tries" in answer.reason
        assert WORDS.get(kind, f"HTTP {kind[5:]}") in answer.reason


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_a_server_refuses_is_not_asked_there_again_but_elsewhere(status: int, right: list[Answer]) -> None:
    with FaultServer(always(f"http_{status}")) as refusing, FaultServer() as other:
        with client(refusing.url) as model:
            (answer,) = model.answer(asks(1))
        assert answer.reason is not None and answer.reason.startswith(
            f"HTTP {status} from {refusing.url[7:-3]} after 1"
        )
        assert refusing.chats <= 2  # 400 and 422 may mean the list of token ids
        with client(refusing.url, other.url) as model:
            assert without_time(model.answer(asks(4))) == right[:4]


def test_unreachable_servers_are_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with client(f"http://127.0.0.1:{port}/v1", tries=3) as model:
        (answer,) = model.answer(asks(1))
    assert answer.reason is not None and f"from 127.0.0.1:{port} after 3 tries" in answer.reason
    assert "Connection refused" in answer.reason
    with client("http://no-such-host.invalid/v1", tries=1) as model:
        (answer,) = model.answer(asks(1))
    assert answer.reason is not None and "no answer from no-such-host.invalid after 1 try" in answer.reason


def test_a_third_of_all_requests_failing_at_random_changes_nothing() -> None:
    kinds = [kind for kind in FAULTS if kind not in ("hang", "drip")]
    two_hundred = asks(200)
    with FaultServer() as server, client(server.url) as model:
        expected = without_time(model.answer(two_hundred))
    with (
        FaultServer(share(0.3, kinds), tokenize=share(0.3, ["reset", "http_503", "cut_json"], 1)) as server,
        client(server.url, tries=20) as model,
    ):
        assert without_time(model.answer(two_hundred)) == expected
        assert server.chats > 250


def test_the_key_is_sent_but_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    texts = []
    with FaultServer(times("http_500", 5)) as server:
        with client(server.url, api_key_env="JUDGE_KEY", tries=2) as model:
            texts += [repr(model), repr(vars(model)), repr(model.answer(asks(2)))]
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    with FaultServer(always("http_401")) as server, client(server.url, api_key_env="JUDGE_KEY") as model:
        texts.append(repr(model.answer(asks(1))))
    assert "you sent Bearer [key]" in texts[-1] and "you sent Bearer [key]" in texts[-2]
    texts += [*(record.getMessage() for record in caplog.records), *capfd.readouterr()]
    assert not any(KEY in text or KEY[3:] in text for text in texts)


def test_bad_endpoints_and_keys_are_told_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for urls in ([], ["127.0.0.1:8000"], ["ftp://host/v1"], ["http://host/v1?a=b"], ["http://"], ["http://a:b/v1"]):
        with pytest.raises(UserError, match=r"judge\.endpoints"):
            OpenAIModel(JudgeConfig.model_construct(endpoints=urls, model="test"))
    with pytest.raises(UserError, match="environment") as error:
        remote_model(f"http://me:{KEY}@host/v1")
    assert KEY not in str(error.value) and "host/v1" in str(error.value)
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\u00e9")
    with pytest.raises(UserError, match="JUDGE_KEY") as error:
        remote_model("http://host/v1", api_key_env="JUDGE_KEY")
    assert KEY not in str(error.value)


def test_several_threads_may_ask_and_close_frees_those_that_wait(right: list[Answer]) -> None:
    with FaultServer(latency=0.01) as server, client(server.url) as model, ThreadPoolExecutor(4) as pool:
        for answers in pool.map(lambda _: model.answer(asks(4)), range(4)):
            assert without_time(answers) == right[:4]
    raised: list[BaseException] = []

    def wait(model: OpenAIModel) -> None:
        try:
            model.answer(asks(2))
        except CancelledError as error:
            raised.append(error)

    with FaultServer(always("hang"), hang=600.0) as server:
        model = remote_model(server.url)
        waiting = threading.Thread(target=wait, args=(model,))
        waiting.start()
        while not server.chats:
            time.sleep(0.005)
        model.close()
        model.close()
        waiting.join(300)
        assert not waiting.is_alive() and raised


@pytest.mark.parametrize("where", ["chat", "tokenize"])
@pytest.mark.parametrize("fault", ["hang", "http_503"])  # the endpoint rests for a long time after the second one
def test_a_model_that_was_closed_while_it_waited_can_be_asked_again(
    right: list[Answer], where: str, fault: str
) -> None:
    def wait(model: OpenAIModel) -> None:
        with suppress(CancelledError):
            model.answer(asks(4))

    chat, tokenize = (times(fault, 1) if where == place else never() for place in ("chat", "tokenize"))
    with (
        FaultServer(chat, tokenize=tokenize, hang=600.0) as server,
        client(server.url, backoff=10_000.0, timeout=600.0) as model,
    ):
        waiting = threading.Thread(target=wait, args=(model,))
        waiting.start()
        while not (server.chats if where == "chat" else server.tokenized):
            time.sleep(0.005)
        model.close()
        waiting.join(300)
        assert not waiting.is_alive()
        assert without_time(model.answer(asks(4))) == right[:4]


def test_a_server_that_wants_max_completion_tokens_is_given_them() -> None:
    with FaultServer(mode="renamed") as server, client(server.url) as model:
        answers = model.answer(asks(3))
        assert [answer.reason for answer in answers] == [None] * 3
        refused = server.chats - 3
        assert refused >= 1
        assert model.answer(asks(3)) and server.chats == 6 + refused  # it is refused once, not every time
