"""Requests to a server of somebody else: what it sends is a reply of limited size, or a `Fault` in clean words.

This is the only place where a server's bytes come in. They are read as they come, never decompressed, and for a limited
time; whatever cannot be read is a `Fault`. Words of a server lose the key and control characters before they go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar
from typing import Any, TypeVar

import httpx

from editr1.errors import UserError, first_line

T = TypeVar("T")
BODY_MAX = 8 * 2**20  # bytes of an answer: the log-probabilities of 512 tokens with 100 choices are 3 MB
LINE = 200  # characters of a reason
WORDS_MAX = 10_000  # characters of a server's words that are looked at
CONNECT = 10.0  # seconds to connect, at most
PIECE = 6  # characters of the key in a row that count as a piece of it
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, changes the direction of a line, ends it, or cannot be written: all but tabs and newlines."""
NOT_FOR_ALL = frozenset({408, 409, 425, 429})  # client errors that may pass
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading an answer raises if it is not what was asked for."""


@dataclass(eq=False)
class Fault(Exception):
    """A wrong answer of an endpoint, or none.

    Attributes:
        what: The problem in a few words, such as "HTTP 503".
        detail: Words of the server or the system about it.
        status: Status of the HTTP answer, if there is one.
        lasting: Whether it makes no sense to ask this endpoint the same again.
        garbled: Whether there is an answer that cannot be used.
        retry_after: Pause in seconds that the server asks for.
    """

    what: str
    detail: str = ""
    status: int = 0
    lasting: bool = False
    garbled: bool = False
    retry_after: float = 0.0

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"[:LINE].rstrip(": ")


def unusable(why: str) -> Fault:
    """The fault of an answer that is not what was asked for."""
    return Fault("unusable answer", why, garbled=True)


@dataclass(frozen=True)
class Reply:
    """An answer as a server sends it; the body of an error may be missing."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        """The JSON in an answer; a `Fault` if it is an error, or something else."""
        if self.status != httpx.codes.OK:
            raise self.refusal()
        kind = self.headers.get("content-type", "")
        if "json" not in kind:
            raise unusable(f"content type {kind!r} is not JSON")
        return self.parsed()

    def parsed(self) -> Any:
        """The body as JSON, whatever its status and type are."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and numbers of 5,000 digits too
            raise unusable(f"JSON is damaged: {error}") from None

    def refusal(self) -> Fault:
        """An answer with an error status, as a fault."""
        lasting = self.status < 500 and self.status not in NOT_FOR_ALL
        pause = 0.0 if lasting else _retry_after(self.headers.get("retry-after", ""))
        return Fault(f"HTTP {self.status}", self._words(), self.status, lasting, retry_after=pause)

    def _words(self) -> str:
        """The message in a server's error, in any of the usual forms."""
        try:
            body = self.parsed()
        except Fault:
            return self.body[:WORDS_MAX].decode(errors="replace")
        error = body.get("error", body) if isinstance(body, dict) else body
        words = error.get("message") or error.get("detail") if isinstance(error, dict) else None
        return str(words or error)


class Wire:
    """Requests to one server; all run in one event loop.

    Every request in flight has an HTTP client of its own: one client searches all of its connections for every request.

    Args:
        url: Base of its interface, without a slash at the end.
        timeout: Seconds per request, from its first byte to the last one of the answer.
        key: The server's key, or nothing.
    """

    def __init__(self, url: str, timeout: float, key: str = "") -> None:
        self.url, self.timeout = url, timeout
        self.clean = cleaner(key)
        self._connect = _connector(url, timeout, {"Authorization": f"Bearer {key}"} if key else {})
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    async def ask(self, url: str, body: dict[str, Any], read: Callable[[Reply], T]) -> T:
        """What `read` makes of the answer to a POST of `body`; a `Fault` if there is none, or `read` raises."""
        try:
            return read(await asyncio.wait_for(self._receive(url, body), self.timeout))
        except Fault as fault:
            fault.detail = self.line(fault.detail)
            raise
        except (asyncio.TimeoutError, httpx.TimeoutException):
            raise Fault("no answer", f"timeout of {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ImportError) as error:  # a package for a proxy
            raise Fault("no answer", self.line(_cause(error))) from None
        except UNREADABLE as error:
            raise unusable(self.line(f"{type(error).__name__}: {error}")) from None

    async def post(self, url: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        """As `ask`, of an answer in JSON."""
        return await self.ask(url, body, lambda reply: read(reply.json()))

    def line(self, words: str) -> str:
        """Words of the server in one line."""
        return " ".join(self.clean(words[:WORDS_MAX]).split())

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            await client.aclose()
        self._clients, self._idle = [], []

    async def _receive(self, url: str, body: dict[str, Any]) -> Reply:
        if not self._idle:
            self._clients.append(self._connect())
            self._idle.append(self._clients[-1])
        client = self._idle.pop()
        try:
            async with client.stream("POST", url, json=body) as response:
                return Reply(response.status_code, response.headers, await _body(response))
        finally:
            self._idle.append(client)


async def _body(response: httpx.Response) -> bytes:
    """The body of an answer; that of an error is left out if it cannot be taken, as its status says enough."""
    coding = response.headers.get("content-encoding", "identity")
    fault = None if coding == "identity" else unusable(f"it is compressed ({coding})")
    content = bytearray()
    if fault is None:
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > BODY_MAX:
                fault = unusable(f"it is longer than {BODY_MAX >> 20} MB")
                break
    if fault is None:
        return bytes(content)
    if response.status_code == httpx.codes.OK:
        raise fault
    return b""


def cleaner(key: str) -> Callable[[str], str]:
    """A function that takes the key, pieces of it and control characters out of a text."""
    size = min(PIECE, len(key))
    pieces = "|".join(re.escape(key[i : i + size]) for i in range(len(key) - size + 1))
    secret = re.compile(f"(?:(?={pieces}).)+.{{{size - 1}}}", re.DOTALL) if key else None

    def clean(text: str) -> str:
        text = CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))
        return secret.sub("[key]", text) if secret else text

    return clean


def server_url(url: str, complaint: str) -> httpx.URL:
    """The address of a server; if there can be none at it, the message of the UserError is `complaint`."""
    try:
        parsed = httpx.URL(url)
        parsed.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        raise UserError(complaint) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 2**16:
        raise UserError(complaint)
    return parsed


class _NoCookies(CookieJar):
    """Servers set none: they would be kept for ever."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Take nothing."""


def _connector(url: str, timeout: float, headers: dict[str, str]) -> Callable[[], httpx.AsyncClient]:
    """Makes clients of a server; certificates are loaded once, and not at all without TLS."""
    parsed = httpx.URL(url)
    local = parsed.host in ("127.0.0.1", "localhost", "::1")
    try:
        verify = httpx.create_ssl_context() if parsed.scheme == "https" else False
    except OSError as error:
        words = f"{url}: the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be loaded: {first_line(error)}"
        raise UserError(f"{words}; mend these variables, or unset them") from error

    def connect() -> httpx.AsyncClient:  # not a partial, whose repr would tell the key
        return httpx.AsyncClient(
            headers={"Accept-Encoding": "identity", **headers},
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT), pool=None),
            cookies=_NoCookies(),
            verify=verify,
            trust_env=not local,  # a proxy of the environment does not lead to this machine
        )

    return connect


def _cause(error: BaseException) -> str:
    """The root cause of an exception: httpx hides the system's words under its own."""
    root: BaseException = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    words = os.strerror(root.errno) if isinstance(root, ConnectionError) and root.errno else str(root) or str(error)
    return f"{type(error).__name__}, {words}" if words else type(error).__name__


def _retry_after(value: str) -> float:
    """Seconds in a Retry-After header, which holds seconds or a date; 0 for none."""
    with suppress(ValueError):
        return max(0.0, float(value))
    try:
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, OverflowError):  # no date, or one in an absurd zone or year
        return 0.0
