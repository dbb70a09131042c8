"""A chat server on a real socket that answers what its question determines, and fails as it is told.

    with FaultServer(times("http_503", 2)) as server:
        model = remote_model(server.url)

A plan gives the fault of each chat request in turn, None for an answer. The answer follows from the message alone: its
hash gives the logits of a small vocabulary.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any

import numpy as np

VOCABULARY = (*(str(digit) for digit in range(10)), "yes", "no", "Yes", " no", " NO", *(f"w{n}" for n in range(37)))
FIRST_ID = 100  # of the vocabulary's tokens
DRIP = 0.02  # seconds between two bytes of a dripping answer

Reply = dict[str, Any]
Plan = Iterator[str | None]


def never() -> Plan:
    return itertools.repeat(None)


def always(kind: str) -> Plan:
    return itertools.repeat(kind)


def times(kind: str, count: int) -> Plan:
    return itertools.chain([kind] * count, never())


def share(part: float, kinds: Sequence[str], seed: int = 0) -> Plan:
    """So large a part of all requests fails, at random, each in one of the ways."""
    generator = random.Random(seed)
    while True:
        yield generator.choice(kinds) if generator.random() < part else None


def tokens_of(text: str) -> list[int]:
    """The id of a text in the vocabulary; any other text is two tokens."""
    return [FIRST_ID + VOCABULARY.index(text)] if text in VOCABULARY else [0, 1]


def logprobs_of(message: str) -> np.ndarray:
    """Log-probabilities of the vocabulary, as they follow from the message."""
    seed = int.from_bytes(hashlib.sha256(message.encode()).digest()[:8], "little")
    logits = 2.0 * np.random.default_rng(seed).normal(size=len(VOCABULARY))
    return logits - np.log(np.exp(logits).sum())


class FaultServer:
    """Serves in a thread of its own while the context is open.

    Args:
        plan: faults of the chat requests.
        tokenize: faults of the requests for token ids.
        mode: "exact" serves `logprob_token_ids`, "ignores" overlooks it, "refuses" answers 400, "plain" has no ids,
            "renamed" is as exact and takes `max_completion_tokens` only.
        latency: seconds before an answer.
        hang: seconds that a hanging request hangs.
        port: to listen on; 0 takes a free one.

    Attributes:
        chats: requests for an answer so far, and `tokenized` those for token ids.
        bodies: of the chats.
        headers: of the chats.
        most: chats at a time, at most.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        tokenize: Plan | None = None,
        mode: str = "exact",
        latency: float = 0.0,
        hang: float = 1.0,
        port: int = 0,
    ) -> None:
        self.plans = {"chat": plan or never(), "tokenize": tokenize or never()}
        self.mode, self.latency, self.hang = mode, latency, hang
        self.chats = self.tokenized = self.now = self.most = 0
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.arrivals: list[float] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> FaultServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End at once, open connections too, as a server that is killed."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._http.connections):
            with suppress(OSError):  # the other side was faster
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def next_fault(self, path: str) -> str | None:
        with self.lock:
            return next(self.plans[path])

    def complete(self, body: Any) -> Reply:
        """A chat completion: one token, or as many as are asked for."""
        content = body["messages"][0]["content"]
        extra = {key: body[key] for key in ("seed", "temperature")} if body["temperature"] else {}
        length = body.get("max_tokens") or body["max_completion_tokens"]
        steps = [logprobs_of(json.dumps([content, extra, step])) for step in range(min(length, 4))]
        tokens = [_token(values, body, exact=self.mode in ("exact", "renamed")) for values in steps]
        choice: Reply = {
            "index": 0,
            "message": {"role": "assistant", "content": " ".join(token["token"] for token in tokens)},
            "finish_reason": "length",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": tokens}
        usage = {"prompt_tokens": 7, "completion_tokens": len(tokens), "prompt_tokens_details": {"cached_tokens": 3}}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}


def _token(values: np.ndarray, body: Any, exact: bool) -> Reply:
    best = int(values.argmax())
    listed = [int(index) for index in np.argsort(-values)[: body.get("top_logprobs", 0)]]
    if exact and body.get("logprob_token_ids"):
        listed = list(dict.fromkeys([best, *(number - FIRST_ID for number in body["logprob_token_ids"])]))
    top = [{"token": VOCABULARY[index], "logprob": float(values[index])} for index in listed]
    return {"token": VOCABULARY[best], "logprob": float(values[best]), "top_logprobs": top}


class _Server(ThreadingHTTPServer):
    owner: FaultServer
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*args)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # the HTTP server's own looks up a host name, which takes a while

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits 40 ms for the headers to be acknowledged
    server: _Server

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/tokenize":
            with owner.lock:
                owner.tokenized += 1
            self._serve("tokenize", owner, lambda: {"tokens": tokens_of(body["prompt"])})
            return
        with owner.lock:
            owner.chats, owner.now = owner.chats + 1, owner.now + 1
            owner.most = max(owner.most, owner.now)
            owner.bodies.append(body)
            owner.headers.append(dict(self.headers))
            owner.arrivals.append(time.monotonic())
        try:
            owner.closing.wait(owner.latency)
            if owner.mode == "refuses" and "logprob_token_ids" in body:
                self.send_json(400, {"error": {"message": "Unrecognized request argument: logprob_token_ids"}})
            elif owner.mode == "renamed" and "max_tokens" in body:
                words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
                self.send_json(400, {"error": {"message": words}})
            else:
                self._serve("chat", owner, lambda: owner.complete(body))
        finally:
            with owner.lock:
                owner.now -= 1

    def _serve(self, path: str, owner: FaultServer, reply: Callable[[], Reply]) -> None:
        if path == "tokenize" and owner.mode == "plain":
            self.send_json(404, {"detail": "Not Found"})
            return
        kind = owner.next_fault(path)
        if kind is None:
            self.send_json(200, reply())
        elif kind.startswith("http_"):
            self._refuse(int(kind[5:8]), kind[8:])
        elif kind in WIRE_FAULTS:
            WIRE_FAULTS[kind](self, json.dumps(reply()).encode())
        else:
            self.send_json(200, BODY_FAULTS[kind](reply()))

    def _refuse(self, status: int, how: str) -> None:
        words = {"error": {"message": f"the server is unwell; you sent {self.headers.get('authorization')}"}}
        soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)
        header = {"_seconds": {"Retry-After": "1"}, "_date": {"Retry-After": soon}}.get(how, {})
        self.send_json(status, words, {"X-Echo": str(self.headers.get("authorization")), **header})

    def send_json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _reset_now(handler: _Handler, data: bytes) -> None:
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _hang_up(handler: _Handler, data: bytes) -> None:
    handler.close_connection = True


def _hang(handler: _Handler, data: bytes) -> None:
    handler.server.owner.closing.wait(handler.server.owner.hang)
    handler.close_connection = True


def _drip(handler: _Handler, data: bytes) -> None:
    handler.close_connection = True
    handler.send(200, b"", {"Content-Type": "application/json", "Content-Length": str(len(data))})
    ends = time.monotonic() + handler.server.owner.hang
    for byte in data:
        if time.monotonic() > ends or handler.server.owner.closing.wait(DRIP):
            return
        handler.wfile.write(bytes([byte]))


def _cut_body(handler: _Handler, data: bytes) -> None:
    handler.close_connection = True
    handler.send(200, data[: len(data) // 2], {"Content-Type": "application/json", "Content-Length": str(len(data))})


def _no_http(handler: _Handler, data: bytes) -> None:
    handler.close_connection = True
    handler.wfile.write(b"\x15\x03\x01 this is not what you think\r\n\r\n")


def _json(data: bytes, kind: str = "application/json", **headers: str) -> Callable[[_Handler, bytes], None]:
    return lambda handler, _: handler.send(200, data, {"Content-Type": kind, **headers})


WIRE_FAULTS: dict[str, Callable[[_Handler, bytes], None]] = {
    "reset": _reset_now,
    "hang_up": _hang_up,
    "hang": _hang,
    "drip": _drip,
    "cut_body": _cut_body,
    "no_http": _no_http,
    "cut_json": lambda handler, data: handler.send(200, data[:-9], {"Content-Type": "application/json"}),
    "wrong_type": lambda handler, data: handler.send(200, data, {"Content-Type": "text/plain"}),
    "html": _json(b"<html>Welcome</html>", "text/html"),
    "empty": _json(b""),
    "no_utf8": _json(b'{"choices": "\xff\xfe"}'),
    "bad_gzip": _json(b"this is not gzip", **{"Content-Encoding": "gzip"}),
}


def _first(reply: Reply, value: Any) -> Reply:
    """The reply, with this as log-probability of every token of the first position."""
    first = reply["choices"][0]["logprobs"]["content"][0]
    first["logprob"] = value
    for entry in first["top_logprobs"]:
        entry["logprob"] = value
    return reply


def _choice(reply: Reply, **fields: Any) -> Reply:
    reply["choices"][0].update(fields)
    return reply


def _position(reply: Reply, **fields: Any) -> Reply:
    reply["choices"][0]["logprobs"]["content"][0].update(fields)
    return reply


BODY_FAULTS: dict[str, Callable[[Reply], Any]] = {
    "error_200": lambda reply: {"error": {"message": "out of memory"}},
    "list": lambda reply: [reply],
    "null": lambda reply: None,
    "no_choices": lambda reply: {**reply, "choices": []},
    "null_message": lambda reply: _choice(reply, message=None),
    "null_content": lambda reply: _choice(reply, message={"role": "assistant", "content": None}),
    "aborted": lambda reply: _choice(reply, finish_reason="abort"),
    "null_logprobs": lambda reply: _choice(reply, logprobs=None),
    "no_positions": lambda reply: _choice(reply, logprobs={"content": []}),
    "few_positions": lambda reply: _choice(
        reply, logprobs={"content": reply["choices"][0]["logprobs"]["content"][:-1]}
    ),
    "null_top": lambda reply: _position(reply, top_logprobs=None),
    "empty_top": lambda reply: _position(reply, top_logprobs=[]),
    "nan": lambda reply: _first(reply, float("nan")),
    "infinite": lambda reply: _first(reply, float("-inf")),
    "positive": lambda reply: _first(reply, 0.7),
    "placeholder": lambda reply: _first(reply, -9999.0),
    "null_logprob": lambda reply: _first(reply, None),
    "text_logprob": lambda reply: _first(reply, "-1.5"),
    "true_logprob": lambda reply: _first(reply, True),
}
