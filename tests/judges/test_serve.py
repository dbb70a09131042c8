"""The server over a real tiny judge, asked by our own client and by bare requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from editr1.errors import UserError
from editr1.judges.base import JudgeRequest
from editr1.judges.methods import METHODS, MethodName
from editr1.judges.mllm import MLLMJudge
from editr1.judges.openai_backend import OpenAIModel, _data_url
from editr1.judges.prompts import load_prompt
from editr1.judges.serve import make_app, serve
from editr1.judges.transformers_backend import TransformersModel
from tests.judges.tiny_judge import build_tiny_judge

PROMPT = load_prompt("brief", "prefix")


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST)


REQUESTS = [JudgeRequest(picture(0), picture(1 + i), "remove the cat", "", "remove") for i in range(24)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TransformersModel:
    return TransformersModel(build_tiny_judge(tmp_path_factory.mktemp("tiny") / "judge"))


@pytest.fixture(scope="module")
def url(model: TransformersModel) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(make_app(model, batch_size=8), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    assert host == "127.0.0.1"
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("method", list(METHODS))
def test_served_and_in_process_scores_are_equal(model: TransformersModel, url: str, method: MethodName) -> None:
    client = OpenAIModel([f"{url}/v1"], "judge")
    here, there = (MLLMJudge(one, PROMPT, method=method, max_tokens=6).score(REQUESTS) for one in (model, client))
    client.close()
    for one, other in zip(here, there, strict=True):
        assert (one.value is None) == (other.value is None) and one.tokens == other.tokens
        if one.value is not None:
            assert other.value == pytest.approx(one.value, abs=1e-5)
            assert other.bound == 0


def test_questions_that_come_together_are_answered_together(
    model: TransformersModel, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    answer = model.answer_top
    monkeypatch.setattr(model, "answer_top", lambda asks, top: sizes.append(len(asks)) or answer(asks, top))
    client = OpenAIModel([f"{url}/v1"], "judge")
    MLLMJudge(client, PROMPT).score(REQUESTS)
    client.close()
    assert sum(sizes) == len(REQUESTS) and len(sizes) < len(REQUESTS) / 2 and max(sizes) <= 8


def body(**changes: Any) -> dict[str, Any]:
    content = [
        {"type": "text", "text": "Edit:"},
        {"type": "image_url", "image_url": {"url": _data_url(picture(0), None)}},
    ]
    return {"model": "judge", "messages": [{"role": "user", "content": content}], "max_tokens": 1} | changes


def image(address: str) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]}])


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (body(model="other"), 404, "'other' is not served here; there is 'judge'"),
        (image("http://127.0.0.1/cat.png"), 400, "nothing is fetched"),
        (image("file:///etc/passwd"), 400, "nothing is fetched"),
        (image("data:image/png;base64,aaaa"), 400, "cannot be read"),
        (image("data:image/png;base64,?"), 400, "cannot be read"),
        (body(messages=[]), 400, "messages"),
        (body(temperature=9), 400, "temperature"),
        (body(top_logprobs=21), 400, "top_logprobs"),
        (body(logprob_token_ids=[10**9], logprobs=True), 400, "logprob_token_ids"),
        (body(messages=[{"role": "user", "content": [{"type": "video"}]}]), 400, "text and image_url only"),
        ({"model": "judge"}, 400, "messages"),
    ],
)
def test_bad_requests_are_refused_in_openais_form(url: str, sent: dict[str, Any], status: int, words: str) -> None:
    reply = httpx.post(f"{url}/v1/chat/completions", json=sent)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_a_plain_request_lists_the_likeliest_tokens(url: str) -> None:
    reply = httpx.post(f"{url}/v1/chat/completions", json=body(logprobs=True, top_logprobs=3, temperature=0)).json()
    (token,) = reply["choices"][0]["logprobs"]["content"]
    assert len(token["top_logprobs"]) == 3
    assert token["logprob"] == token["top_logprobs"][0]["logprob"] <= 0
    assert reply["usage"]["prompt_tokens"] > 0 and reply["usage"]["completion_tokens"] == 1
    assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "judge"
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_batch_that_fails_is_an_error_of_its_requests_alone(
    model: TransformersModel, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(asks: object, top: int) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(model, "answer_top", fail)
        reply = httpx.post(f"{url}/v1/chat/completions", json=body())
        assert (reply.status_code, reply.json()["error"]["message"]) == (500, "RuntimeError: out of memory")
    assert httpx.post(f"{url}/v1/chat/completions", json=body()).status_code == 200


def test_a_port_that_is_taken_is_refused_in_words(model: TransformersModel, url: str) -> None:
    with pytest.raises(UserError, match=r"cannot listen at 127\.0\.0\.1:\d+ .*--port"):
        serve(model, port=int(url.rsplit(":", 1)[1]))


def test_the_shipped_path_of_a_model_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder at"):
        TransformersModel(tmp_path / "none")
