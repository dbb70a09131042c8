"""The server over a real tiny judge, asked by our own client and by bare requests."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from editr1.config.rewards import MethodName
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import Answer, Ask, Judge, JudgeRequest
from editr1.judges.methods import METHODS
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models import server as server_module
from editr1.judges.models.local import TransformersModel
from editr1.judges.models.questions import Refused, image_file
from editr1.judges.models.questions import picture as read_image
from editr1.judges.models.remote import picture_url
from editr1.judges.models.server import BODY_MAX, make_app, serve
from editr1.judges.prompts import load_prompt
from editr1.judges.rewards.ranking import RankingJudge
from tests.judges.client import remote_model
from tests.judges.tiny_judge import build_tiny_judge

PROMPT = load_prompt("brief", "prefix")


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST)


REQUESTS = [JudgeRequest(EditSample("", picture(0), "remove the cat", "", "remove"), picture(1 + i)) for i in range(24)]


FEW = [replace(one, sample=REQUESTS[0].sample) for one in REQUESTS[:3]]
MANY = [replace(one, sample=replace(FEW[0].sample, references=(picture(50), picture(51)))) for one in FEW]
"""Edits of one sample without references, and of one with two."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TransformersModel:
    return TransformersModel(build_tiny_judge(tmp_path_factory.mktemp("tiny") / "judge"))


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def url(model: TransformersModel) -> Iterator[str]:
    with running(make_app(model, batch_size=8)) as url:
        yield url


@pytest.mark.parametrize("method", list(METHODS))
def test_served_and_in_process_scores_are_equal(model: TransformersModel, url: str, method: MethodName) -> None:
    client = remote_model(f"{url}/v1", model="judge")
    asked = REQUESTS + MANY
    here, there = (MLLMJudge(one, PROMPT, method=method, max_tokens=6).score(asked) for one in (model, client))
    client.close()
    for one, other in zip(here, there, strict=True):
        assert (one.value is None) == (other.value is None) and one.tokens == other.tokens
        if one.value is not None:
            assert other.value == pytest.approx(one.value, abs=1e-5)
            assert other.bound == 0


@pytest.mark.parametrize("method", ["score_logit", "yes_no", "ranking"])
def test_references_are_read_here_and_served_alike(model: TransformersModel, url: str, method: Any) -> None:
    client = remote_model(f"{url}/v1", model="judge")
    judges: list[Judge] = [
        RankingJudge(one) if method == "ranking" else MLLMJudge(one, PROMPT, method=method) for one in (model, client)
    ]
    blind, seen = ([judge.score(requests) for judge in judges] for requests in (FEW, MANY))
    client.close()
    for here, there in (blind, seen):
        assert [score.value for score in there] == pytest.approx([score.value for score in here], abs=1e-5)
        assert [score.tokens for score in there] == [score.tokens for score in here]
    for one, other in zip(blind[0], seen[0], strict=True):
        assert one.value != other.value and other.tokens > one.tokens + 8  # two pictures


def test_a_system_message_is_read_here_and_served_alike(model: TransformersModel, url: str) -> None:
    client = remote_model(f"{url}/v1", model="judge")
    asks = [
        Ask(("Edit:", picture(0), "Good?"), choices=("no", "yes"), system=system) for system in ("", "Judge an edit.")
    ]
    (bare, told), (bare_there, told_there) = model.answer(asks), client.answer(asks)
    client.close()
    assert told.prompt_tokens > bare.prompt_tokens
    assert [told_there.prompt_tokens, bare_there.prompt_tokens] == [told.prompt_tokens, bare.prompt_tokens]
    for here, there in ((bare, bare_there), (told, told_there)):
        assert there.positions[0].logprobs == pytest.approx(here.positions[0].logprobs, abs=1e-4)
    assert told.positions[0].logprobs != pytest.approx(bare.positions[0].logprobs, abs=1e-4)


def test_questions_that_come_together_are_answered_together(
    model: TransformersModel, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    answer = model.answer_top
    monkeypatch.setattr(model, "answer_top", lambda asks, top: sizes.append(len(asks)) or answer(asks, top))
    client = remote_model(f"{url}/v1", model="judge")
    MLLMJudge(client, PROMPT, method="score_logit").score(REQUESTS)
    client.close()
    assert sum(sizes) == len(REQUESTS) and len(sizes) < len(REQUESTS) / 2 and max(sizes) <= 8


def body(**changes: Any) -> dict[str, Any]:
    content = [
        {"type": "text", "text": "Edit:"},
        {"type": "image_url", "image_url": {"url": picture_url(picture(0), None)}},
    ]
    return {"model": "judge", "messages": [{"role": "user", "content": content}], "max_tokens": 1} | changes


def image(address: str, count: int = 1) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}] * count}])


def encoded(picture: Image.Image, kind: str, label: str | None = None) -> str:
    file = io.BytesIO()
    picture.save(file, kind)
    return f"data:image/{(label or kind).lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


SYSTEM = {"role": "system", "content": "You judge."}


def ask(url: str, sent: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=sent, timeout=600)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (body(model="other"), 404, "'other' is not served here; there is 'judge'"),
        (image("http://127.0.0.1/cat.png"), 400, "nothing is fetched"),
        (image("file:///etc/passwd"), 400, "nothing is fetched"),
        (image("data:image/png;base64,aaaa"), 400, "cannot be read"),
        (image("data:image/png;base64,?"), 400, "cannot be read"),
        (image(encoded(picture(0), "GIF", "png")), 400, "cannot be read"),
        (image(encoded(picture(0), "PNG")[:-200]), 400, "cannot be read"),
        (image(encoded(picture(0), "GIF")), 400, "nothing is fetched"),
        (image(encoded(picture(0), "PNG"), 9), 400, "8 images"),
        (image(encoded(Image.new("RGB", (2, 900)), "PNG")), 400, "aspect ratio"),
        (body(messages=[]), 400, "messages"),
        (body(messages=[SYSTEM]), 400, "one message of the user"),
        (body(messages=[*body()["messages"], SYSTEM]), 400, "one message of the user"),
        (body(messages=body()["messages"] * 2), 400, "one message of the user"),
        (body(messages=[{"role": "assistant", "content": "5"}, *body()["messages"]]), 400, "messages.0.role"),
        (body(messages=[{**body()["messages"][0], "role": "system"}, *body()["messages"]]), 400, "may hold text only"),
        (body(n=0), 400, "n: "),
        (body(stream=True), 400, "stream"),
        ([], 400, "object"),
        (body(temperature=9), 400, "temperature"),
        (body(top_logprobs=21), 400, "top_logprobs"),
        (body(logprob_token_ids=[10**9], logprobs=True), 400, "logprob_token_ids"),
        (body(messages=[{"role": "user", "content": [{"type": "video"}]}]), 400, "text and image_url only"),
        ({"model": "judge"}, 400, "messages"),
    ],
)
def test_bad_requests_are_refused_in_openais_form(url: str, sent: dict[str, Any], status: int, words: str) -> None:
    reply = ask(url, sent)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "code"}
    assert words in reply.json()["error"]["message"]


def test_a_plain_request_lists_the_likeliest_tokens(url: str) -> None:
    reply = httpx.post(f"{url}/v1/chat/completions", json=body(logprobs=True, top_logprobs=3, temperature=0)).json()
    (token,) = reply["choices"][0]["logprobs"]["content"]
    assert len(token["top_logprobs"]) == 3
    assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0
    assert reply["usage"]["prompt_tokens"] > 0 and reply["usage"]["completion_tokens"] == 1
    assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "judge"
    assert httpx.get(f"{url}/health").status_code == 200


def test_what_is_no_request_is_refused_in_openais_form(url: str) -> None:
    chat = f"{url}/v1/chat/completions"
    long = [b" " * 2**20] * (BODY_MAX // 2**20 + 1)
    replies = [
        (httpx.post(chat, content=b'{"model": "jud'), 400),
        (httpx.post(chat, content=b"".join(long)), 413),
        (httpx.post(chat, content=iter(long)), 413),  # chunked: its length is not told
        (httpx.get(chat), 405),
        (httpx.post(f"{url}/v1/completions", json={}), 404),
        (httpx.post(f"{url}/tokenize", json={"model": "judge"}), 400),
        (httpx.post(f"{url}/tokenize", json={"model": "other", "prompt": "0"}), 404),
    ]
    for reply, status in replies:
        assert reply.status_code == status
        assert set(reply.json()["error"]) == {"message", "type", "code"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_are_read_whole_or_refused(kind: str) -> None:
    random = np.random.default_rng(0)
    head, _, data = encoded(picture(0), kind).partition(",")
    whole = base64.b64decode(data)
    assert (
        np.abs(np.asarray(read_image(image_file(f"{head},{data}")), float) - np.asarray(picture(0), float)).mean() < 20
    )
    for _ in range(300):
        damaged = bytearray(whole[: random.integers(len(whole) // 2, len(whole) + 1)])
        damaged[random.integers(len(damaged))] = random.integers(256)
        with contextlib.suppress(Refused):
            read_image(image_file(f"{head},{base64.b64encode(damaged).decode()}"))


def test_several_answers_are_drawn_with_seeds_of_their_own(url: str) -> None:
    drawn = body(temperature=2, seed=7, max_tokens=3, n=4)
    reply = ask(url, drawn).json()
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3] and len(set(texts)) > 1
    assert texts == [choice["message"]["content"] for choice in ask(url, drawn).json()["choices"]]
    assert texts[2] == ask(url, drawn | {"n": 1, "seed": 9}).json()["choices"][0]["message"]["content"]
    assert {choice["finish_reason"] for choice in reply["choices"]} <= {"stop", "length"}
    unset = body(temperature=2, seed=None, top_logprobs=None, max_tokens=6, n=None, user="me")
    assert len({ask(url, unset).json()["choices"][0]["message"]["content"] for _ in range(6)}) > 1


def test_named_tokens_come_alone_whatever_others_ask(model: TransformersModel) -> None:
    ids = [model.token_id(digit) for digit in "012345"]
    named = body(logprobs=True, top_logprobs=0, logprob_token_ids=ids, temperature=0)
    likeliest = body(logprobs=True, top_logprobs=20, temperature=0)
    with running(make_app(model, wait_ms=300)) as url, ThreadPoolExecutor(2) as pool:
        one, other = (reply.json()["choices"][0] for reply in pool.map(lambda sent: ask(url, sent), (named, likeliest)))
    (token,), (plain,) = one["logprobs"]["content"], other["logprobs"]["content"]
    assert [entry["token"] for entry in token["top_logprobs"]] == list("012345")
    assert len(plain["top_logprobs"]) > 6
    assert token["logprob"] == pytest.approx(plain["logprob"], abs=1e-5) and token["token"] == plain["token"]
    assert one["finish_reason"] == "length"


def test_tokens_are_told_while_the_model_answers(model: TransformersModel, url: str) -> None:
    def tokens(text: str) -> Any:
        return httpx.post(f"{url}/tokenize", json={"model": "judge", "prompt": text, "add_special_tokens": False})

    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(ask, url, body()) for _ in range(48)]
        told = [pool.submit(tokens, "cat dog " * 50) for _ in range(48)]
    assert {one.result().status_code for one in asked} == {200}
    expected = model.processor.tokenizer.encode("cat dog " * 50, add_special_tokens=False)
    assert all(one.result().json()["tokens"] == expected for one in told)
    assert tokens("5").json() == {
        "tokens": [model.token_id("5")],
        "count": 1,
        "max_model_len": min(model.processor.tokenizer.model_max_length, 2**31 - 1),
    }


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyError("a bug")])
def test_a_batch_that_fails_is_an_error_of_its_requests_alone(
    model: TransformersModel, url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(asks: object, top: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(model, "answer_top", fail)
        reply = ask(url, body())
        assert (reply.status_code, reply.json()["error"]["message"]) == (500, f"{type(error).__name__}: {error}")
    assert ask(url, body()).status_code == 200


def test_a_question_that_cannot_be_answered_fails_alone(model: TransformersModel) -> None:
    thin = image(encoded(Image.new("RGB", (2, 900)), "PNG"))  # the model's processor refuses it
    with running(make_app(model, wait_ms=300)) as url, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda sent: ask(url, sent), [body(), thin, body(), body()]))
    assert [reply.status_code for reply in replies] == [200, 400, 200, 200]


class Held:
    """A model that answers when it is let go, and tells what it was asked."""

    def __init__(self, model: TransformersModel) -> None:
        self.name, self.remote, self.processor, self.model = model.name, False, model.processor, model
        self.token_id, self.token_text, self.answer = model.token_id, model.token_text, model.answer
        self.free = threading.Event()
        self.texts: list[list[Any]] = []

    def answer_top(self, asks: Sequence[Ask], top: int) -> list[Answer]:
        self.texts.append([ask.parts[0] for ask in asks])
        assert self.free.wait(600)
        return self.model.answer_top(asks, top)


def say(text: str) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": text}])


def test_a_question_whose_client_went_away_is_not_answered(model: TransformersModel) -> None:
    held = Held(model)
    with running(make_app(held, batch_size=1)) as url, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, url, say("cat"))
        while not held.texts:
            time.sleep(0.01)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/chat/completions", json=say("dog"), timeout=0.3)
        last = pool.submit(ask, url, say("red"))
        for _ in range(3):
            httpx.get(f"{url}/v1/models")  # whoever answers this has seen before that the client of "dog" is gone
        held.free.set()
        assert (first.result().status_code, last.result().status_code) == (200, 200)
    assert held.texts == [["cat"], ["red"]]


def test_more_questions_than_may_wait_are_sent_away(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "QUEUE", 3)
    held = Held(model)
    with running(make_app(held, batch_size=1)) as url, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, url, say("cat")) for _ in range(8)]
        while sum(one.done() for one in asked) < 4:
            time.sleep(0.01)
        held.free.set()
    replies = [one.result() for one in asked]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert len(refused) == 4 and all(reply.headers["retry-after"] == "1" for reply in refused)
    assert sum(reply.status_code == 200 for reply in replies) == 4


def test_serving_tells_its_url_and_ends_quietly_at_an_interrupt() -> None:
    code = (
        "import signal, types; from editr1.judges.models.server import serve; from editr1.terminal import loudness\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it\n"
        "try:\n"
        "    with loudness(20): serve(types.SimpleNamespace(name='judge'), host='127.0.0.1', port=0, batch_size=1)\n"
        "except KeyboardInterrupt: raise SystemExit(130)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stderr is not None
    line = process.stderr.readline()
    address = line.split()[3]
    assert line == f"Serving judge at {address} (Ctrl-C ends it)\n" and address.startswith("http://127.0.0.1:")
    assert json.loads(httpx.get(f"{address}/models").content)["data"][0]["id"] == "judge"
    process.send_signal(signal.SIGINT)
    assert (process.wait(60), process.stderr.read()) == (130, "")


def test_a_port_that_is_taken_is_refused_in_words(model: TransformersModel, url: str) -> None:
    with pytest.raises(UserError, match=r"cannot listen at 127\.0\.0\.1:\d+ .*--port"):
        serve(model, host="127.0.0.1", batch_size=1, port=int(url.rsplit(":", 1)[1]))


def test_the_shipped_path_of_a_model_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder at"):
        TransformersModel(tmp_path / "none")
