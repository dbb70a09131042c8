"""Servers of strangers: whatever they answer, a judge or a http reward has a score or a reason, and soon."""

from __future__ import annotations

import gzip
import json
import logging
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.data.samples import EditSample
from editr1.judges.base import Answer, Ask, JudgeRequest
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.remote import _read, _tokens
from editr1.judges.models.wire import UNREADABLE, Fault, cleaner
from editr1.judges.prompts import load_prompt
from editr1.judges.rewards.http import HttpReward
from tests.hostile.harness import Case, Judged
from tests.judges.client import DIGITS, client

KEY = "sk-planted-0123456789abcdef"
MB = 2**20
PICTURE = Image.new("RGB", (8, 8))
PIECES = [KEY[i : i + 6] for i in range(len(KEY) - 5)]
NAMES = ("choices", "message", "content", "logprobs", "token", "logprob", "top_logprobs", "usage", "finish_reason")
REQUEST = JudgeRequest(EditSample("", PICTURE, "edit it", "", "add"), PICTURE)
PROMPT = load_prompt("brief", "prefix")
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2028\ud800\r"


def response(
    body: bytes, kind: str = "application/json", status: str = "200 OK", length: int | None = None, **more: str
) -> bytes:
    """An answer of a server that closes the connection after it, and says so: nobody asks there again."""
    size = str(len(body) if length is None else length)
    headers = {"Content-Type": kind, "Content-Length": size, "Connection": "close", **more}
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


def chat(**changes: Any) -> Any:
    """A chat completion of one token, with other fields in its choice."""
    top = [{"token": digit, "logprob": -1.8} for digit in DIGITS]
    content = [{"token": "3", "logprob": -1.8, "top_logprobs": top}]
    choice = {"message": {"content": "3"}, "finish_reason": "stop", "logprobs": {"content": content}}
    return {"choices": [{**choice, **changes}]}


def logprob(value: str) -> bytes:
    """A chat completion whose log-probabilities are all this piece of JSON."""
    return json.dumps(chat()).replace("-1.8", value).encode()


@contextmanager
def raw_server(send: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request and then does as it is told."""
    logging.basicConfig(level=logging.WARNING, force=True)  # on the error stream, in place of pytest's
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(MB)
                body = head.partition(b"\r\n\r\n")[2]
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-len"))
                while len(body) < length:
                    body += connection.recv(MB)
                send(connection)
            except OSError:
                pass

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def once(answer: bytes, connection: socket.socket) -> None:
    connection.sendall(answer)
    connection.shutdown(socket.SHUT_WR)


def for_ever(head: bytes, piece: bytes, pause: float, connection: socket.socket) -> None:
    connection.sendall(head)
    while True:
        connection.sendall(piece)
        time.sleep(pause)


def check_words(*texts: str | None) -> None:
    """Reasons and log lines are short and printable, and tell nothing of the key."""
    for text in texts:
        assert text is None or (len(text) <= 300 and text.isprintable()), text
        assert not any(piece in str(text) for piece in PIECES), text


def ask_judge(send: Callable[[socket.socket], None], right: bool, seconds: float, folder: Path) -> None:
    """Questions to the server get a reason, or the score if it is `right`; its words are clean without the key."""
    os.environ["JUDGE_KEY"] = KEY
    logged: list[logging.LogRecord] = []
    logging.getLogger("editr1").addHandler(handler := logging.Handler())
    handler.emit = logged.append  # type: ignore[method-assign, assignment]
    with raw_server(send) as url, client(url, timeout=seconds, tries=1, api_key_env="JUDGE_KEY") as model:
        (score,) = MLLMJudge(model, PROMPT, method="score_logit").score([REQUEST])
        (answer,) = model.answer([Ask(("say",), max_tokens=20)])
    check_words(score.reason, answer.reason, *(record.getMessage() for record in logged))
    assert answer.text.replace("\n", "").replace("\t", "").isprintable()
    assert not any(piece in repr((score, answer)) for piece in PIECES)
    json.dumps([score.tokens / 3, answer.completion_tokens, answer.text], ensure_ascii=False).encode()
    assert (score.value is not None) == right, score


def ask_reward(send: Callable[[socket.socket], None], seconds: float, folder: Path) -> None:
    """The server gives no score, but a reason."""
    with raw_server(send) as url:
        reward = HttpReward(url, tries=1, timeout=seconds)
        (score,) = reward.score([REQUEST])
        reward.close()
    check_words(score.reason)
    assert score.value is None


NESTED = b'{"choices": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
BOMB = gzip.compress(bytes(200 * MB), 9)
WIRE: dict[str, Callable[[socket.socket], None]] = {
    "a body of 1 GB": partial(for_ever, response(b"", length=2**30), bytes(MB), 0.0),
    "a body without end": partial(for_ever, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b" " * MB, 0),
    "chunks without end": partial(
        for_ever,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"100000\r\n" + b" " * MB + b"\r\n",
        0,
    ),
    "an error of 1 GB": partial(for_ever, response(b"", status="500 No", length=2**30), b"x" * MB, 0.0),
    "a refusal of 1 GB": partial(for_ever, response(b"", status="401 No", length=2**30), b"x" * MB, 0.0),
    "a gzip bomb": partial(once, response(BOMB, Content_Encoding="gzip")),
    "a deflate bomb": partial(once, response(zlib.compress(bytes(200 * MB), 9), Content_Encoding="deflate")),
    "a gzip bomb as an error": partial(once, response(BOMB, status="400 No", Content_Encoding="gzip")),
    "an unknown coding": partial(once, response(b"{}", Content_Encoding="br, zstd, x-y")),
    "headers without end": partial(for_ever, b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 9000 + b"\r\n", 0.0),
    "one header without end": partial(for_ever, b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * MB, 0.0),
    "continue without end": partial(for_ever, b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
    "a status line without end": partial(for_ever, b"HTTP/1.1 200 ", b"O" * MB, 0.0),
    "a body that drips": partial(for_ever, response(b"", length=10_000), b" ", 0.2),
    "headers that drip": partial(for_ever, b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.2),
    "nested JSON": partial(once, response(NESTED)),
    "nested JSON as an error": partial(once, response(NESTED, status="500 No")),
    "5,000 digits": partial(once, response(b'{"choices": ' + b"9" * 5000 + b"}")),
    "no UTF-8": partial(once, response(b'{"choices": "\xff\xfe"}')),
    "UTF-16 with a lone surrogate": partial(once, response('{"choices": "x"}'.encode("utf-16")[:-3])),
    "two lengths": partial(once, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "a negative length": partial(once, response(b"{}", length=-5)),
    "status 99": partial(once, response(b"{}", status="99 No")),
    "status 999": partial(once, response(b"{}", status="999 No")),
    "status 204": partial(once, response(b"", status="204 No")),
    "a redirect to port 99999": partial(once, response(b"", status="302 Found", Location="http://h:99999/")),
    "a redirect to nowhere": partial(once, response(b"", status="301 Moved", Location="http://[::1")),
    "a redirect to an odd name": partial(once, response(b"", status="307 Moved", Location="http://xn--a/")),
    "a redirect to bytes": partial(once, response(b"", status="308 Moved", Location="http://\udcff\udcfe/")),
    "a switch of protocols": partial(once, b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n"),
    "odd cookies": partial(once, response(b"{}", Set_Cookie="a=b; expires=Wed, 99 Foo 99999 99:99:99 +99999999")),
    "bytes in headers": partial(once, b"HTTP/1.1 200 OK\r\nContent-Type: json\xff\xfe\r\nContent-Length: 2\r\n\r\n{}"),
    "control characters in the type": partial(once, response(b"{}", kind="text/\x1b[2Jjson-not".replace("json", "x"))),
    **{
        f"charset={name}": partial(once, response(b"x\x9c" + bytes(99), f"text/plain; charset={name}", "500 No"))
        for name in ("zlib", "hex", "idna", "rot13", "undefined", "base64", "unicode_escape", "mbcs")
    },
    **{
        f"Retry-After: {value[:40]}": partial(once, response(b"{}", status="400 Later", Retry_After=value))
        for value in (
            "Wed, 21 Oct 2015 07:28:00 +99999999",
            "Wed, 21 Oct 9999 23:59:59 -2359",
            "Mon, 01 Jan 0001 00:00:00 +2359",
            "nan",
            "-inf",
            "1e999",
            "9" * 5000,
            "\udcff",
        )
    },
}
ODD: dict[str, bytes] = {
    "finish_reason []": json.dumps(chat(finish_reason=[])).encode(),
    "finish_reason {}": json.dumps(chat(finish_reason={})).encode(),
}
"""Odd, but whole answers."""
BODIES: dict[str, bytes] = {
    "a log-probability of -10^400": logprob("-1" + "0" * 400),
    "a log-probability of 10^400": logprob("1" + "0" * 400),
    "a log-probability of -1e999": logprob("-1e999"),
    "a log-probability that is a list": logprob("[[]]"),
    "a log-probability that is the key": logprob(json.dumps(KEY)),
    "a log-probability in a page of words": logprob(json.dumps("a" * 70_000 + KEY)),
    "choices by name": b'{"choices": {"0": {}}}',
    "choices as text": b'{"choices": "abc"}',
    "choices of lists": b'{"choices": [[1]]}',
    "a message as text": json.dumps(chat(message="content")).encode(),
    "content as a list": json.dumps(chat(message={"content": ["3"]})).encode(),
    "logprobs of numbers": json.dumps(chat(logprobs={"content": [1, 2]})).encode(),
    "top_logprobs by name": json.dumps(chat(logprobs={"content": [{"token": "3", "top_logprobs": {"a": 1}}]})).encode(),
    "top_logprobs of nulls": json.dumps(
        chat(logprobs={"content": [{"token": "3", "logprob": -1, "top_logprobs": [None]}]})
    ).encode(),
    "a million tokens": json.dumps(chat(logprobs={"content": [0] * 10**6})).encode(),
    "many tokens": json.dumps(chat(logprobs={"content": chat()["choices"][0]["logprobs"]["content"] * 9000})).encode(),
    "a text of 7 MB": json.dumps(chat(message={"content": "3" * 7 * MB})).encode(),
    "an error with the key": json.dumps({"error": {"message": f"not {KEY}"}}).encode(),
    "a list": b"[]",
    "a number": b"1e999",
}
NUMBERS: dict[str, Any] = {
    "10^400 tokens": {"prompt_tokens": 10**400},
    "minus ten tokens": {"prompt_tokens": -10},
    "true tokens": {"completion_tokens": True},
    "tokens in a list": {"completion_tokens": [1]},
    "details as text": {"prompt_tokens_details": "none"},
    "usage as text": "none",
}
USAGE = {name: json.dumps({**chat(), "usage": usage}).encode() for name, usage in NUMBERS.items()}
ECHOES: dict[str, str] = {
    "whole": f"you sent Bearer {KEY}",
    "cut": f"you sent {KEY[:9]}...{KEY[-8:]}",
    "with stars": f"{KEY[:11]}*****",
    "torn by control characters": f"{KEY[:12]}\x1b[0m{KEY[12:]}",
    "torn by a newline": f"{KEY[:12]}\n{KEY[12:]}",
    "behind 200 letters": "a" * 195 + KEY,
    "behind 10,000 letters": "a" * 9_990 + KEY,
    "many times": KEY * 500,
    "among control characters": f"{EVIL}{KEY}{EVIL}",
}
TEXT_ECHOES = {
    f"an answer with the key {name}": json.dumps(chat(message={"content": f"{words[-200:]}"})).encode()
    for name, words in ECHOES.items()
}
ERROR_ECHOES = {
    f"{status} with the key {name}": response(json.dumps({"error": {"message": words}}).encode(), status=status)
    for name, words in ECHOES.items()
    for status in ("401 No", "400 No", "500 No")
} | {
    f"{kind} with the key {name}": response(words.encode("utf-8", "replace"), status="422 No", kind=kind)
    for name, words in ECHOES.items()
    for kind in ("text/plain", "text/html; charset=utf-16")
}
REWARDS: dict[str, bytes] = {
    f"score {text[:30]}": b'{"score": ' + text.encode() + b"}"
    for text in (
        "1" + "0" * 400, "-1" + "0" * 400, "1e999", "NaN", "-Infinity", "true", "[]", "{}", '"0.5"', "9" * 5000,
        '"' + "a" * MB + '"', '"\\u001b[2J\\ud800"', "[" * 200_000 + "]" * 200_000,
    )
}  # fmt: skip
REASONS = {
    f"reason {name}": json.dumps({"score": None, "reason": reason}).encode()
    for name, reason in {
        "with control characters": EVIL,
        "of 7 MB": "a" * 7 * MB,
        "that is a list": [[EVIL]],
        "that is 10^400": 10**400,
    }.items()
}
WRONG = {name: partial(once, response(body)) for name, body in {**BODIES, **TEXT_ECHOES}.items()}
RIGHT = {name: partial(once, response(body)) for name, body in {**ODD, **USAGE}.items()}
SCORES = {name: partial(once, response(body)) for name, body in {**REWARDS, **REASONS}.items()}
ERRORS = {name: partial(once, answer) for name, answer in ERROR_ECHOES.items()}
CASES = (
    *(Case(f"judge: {name}", partial(ask_judge, send, False, 1.0), "clean") for name, send in WIRE.items()),
    *(Case(f"judge: {name}", partial(ask_judge, send, False, 30.0), "clean") for name, send in WRONG.items()),
    *(Case(f"judge: {name}", partial(ask_judge, send, True, 30.0), "clean") for name, send in RIGHT.items()),
    *(Case(f"judge: {name}", partial(ask_judge, send, False, 30.0), "clean") for name, send in ERRORS.items()),
    *(Case(f"reward: {name}", partial(ask_reward, send, 1.0), "clean") for name, send in WIRE.items()),
    *(Case(f"reward: {name}", partial(ask_reward, send, 30.0), "clean") for name, send in SCORES.items()),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_server_breaks_a_judge_or_a_reward(case: Case, judged: Judged) -> None:
    judged(case)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([-9999.0, 10**400, "3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


def changed(draw: Callable[[Any], Any], value: Any) -> Any:
    """The value with something else in one or more of its places."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        return {name: changed(draw, inner) for name, inner in value.items()}
    return [changed(draw, inner) for inner in value] if isinstance(value, list) else value


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_answer_is_read_or_refused(data: st.DataObject) -> None:
    reply = changed(data.draw, chat())
    for ask in (Ask(("",), DIGITS), Ask(("",), ("no", "yes"), any_spelling=True), Ask(("",), max_tokens=3)):
        try:
            answer = _read(reply, ask, cleaner(KEY), 0)
        except (Fault, *UNREADABLE):
            continue
        assert isinstance(answer, Answer) and isinstance(answer.text, str)
        assert all(-9999 < value <= 0 for position in answer.positions for value in position.logprobs.values())
    with suppress(Fault):
        assert all(type(token) is int for token in _tokens(reply))


@given(st.text(), st.text(), st.integers(0, len(KEY)), st.integers(0, len(KEY)))
def test_no_piece_of_the_key_and_no_control_character_is_left_in_words(
    before: str, after: str, start: int, end: int
) -> None:
    clean = cleaner(KEY)(f"{before}{KEY[start:end]}{EVIL}{KEY}{after}")
    assert not any(piece in clean for piece in PIECES)
    assert not any(letter in clean for letter in EVIL if not letter.isprintable())
    clean.encode()
