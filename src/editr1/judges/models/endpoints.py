"""Several servers that answer the same questions: which one to ask next, what to try again, when to give up.

A call goes to the endpoint with the least expected wait, (calls in flight + 1) × mean latency. An endpoint that fails
rests, each time twice as long, and then gets one call at a time until it answers; meanwhile the others are used. A call
is given up when every endpoint has failed it often enough, so a dead endpoint costs no tries of a live one. None of
this changes an answer, only the time when it comes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import httpx

T = TypeVar("T")
LONGEST_REST = 30.0  # seconds of backoff
LONGEST_WISH = 300.0  # longest pause in seconds that a server gets by Retry-After
CONNECT = 10.0  # seconds to connect, at most
UNKNOWN_LATENCY = 2  # calls in flight at an endpoint that has not answered yet, if there are others
GARBLED = 3  # unreadable answers in a row after which an endpoint rests
REASON = 200  # characters
NOT_FOR_ALL = frozenset({408, 409, 425, 429})  # client errors that may pass

_log = logging.getLogger(__name__)


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
        return f"{self.what}: {self.detail}" if self.detail else self.what


def unusable(why: str) -> Fault:
    """The fault of an answer that is not what was asked for."""
    return Fault("unusable answer", why, garbled=True)


class GivenUp(Exception):
    """No endpoint answered a call; the text says why, by the last `fault` and the `tries` at the last `host`."""

    def __init__(self, host: str, fault: Fault, tries: int) -> None:
        times = "1 try" if tries == 1 else f"{tries} tries"
        super().__init__(f"{fault.what} from {host} after {times}: {fault.detail}"[:REASON].rstrip(": "))
        self.fault, self.tries = fault, tries


@dataclass(eq=False)
class Endpoint:
    """One server.

    Attributes:
        url: Base of its interface, without a slash at the end.
        connect: Makes an HTTP client for it, with the credentials. Every call in flight has a client of its own: one
            client searches all of its connections for every call.
        timeout: Seconds per call.
        redact: Takes secrets out of a text.
        in_flight: Calls in flight.
        latency: Moving mean over its answers in seconds; None before the first.
        failures: Failures in a row; calls that fail together count as one.
        refusing: Whether its last answer says that it does not take such calls.
        clients: All of its clients.
        idle: The clients that no call uses.
    """

    url: str
    connect: Callable[[], httpx.AsyncClient]
    timeout: float
    redact: Callable[[str], str]
    in_flight: int = 0
    latency: float | None = None
    failures: int = 0
    refusing: bool = False
    failed_at: float = 0.0
    rests_until: float = 0.0
    wished_until: float = 0.0
    fault: Fault | None = None
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    idle: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return httpx.URL(self.url).netloc.decode()

    async def post(self, url: str, body: dict[str, Any]) -> Any:
        """JSON for JSON, or a `Fault`."""
        response = await self.send(url, body)
        if response.status_code != 200:
            raise self.refusal(response)
        kind = response.headers.get("content-type", "")
        if "json" not in kind:
            raise unusable(f"content type {self.redact(kind)!r} is not JSON")
        try:
            return json.loads(response.content)
        except ValueError as error:  # UnicodeDecodeError too
            raise unusable(f"JSON is damaged: {self.redact(str(error))}") from None

    async def send(self, url: str, body: dict[str, Any]) -> httpx.Response:
        """Whatever the server answers; a `Fault` if it does not."""
        if not self.idle:
            self.clients.append(self.connect())
            self.idle.append(self.clients[-1])
        client = self.idle.pop()
        try:
            return await asyncio.wait_for(client.post(url, json=body), self.timeout)
        except (asyncio.TimeoutError, httpx.TimeoutException):
            raise Fault("no answer", f"timeout of {self.timeout:g} s") from None
        except httpx.RequestError as error:
            raise Fault("no answer", self.redact(_cause(error))) from None
        finally:
            self.idle.append(client)

    def refusal(self, response: httpx.Response) -> Fault:
        """An answer with an error status, as a fault."""
        status = response.status_code
        return Fault(
            f"HTTP {status}",
            " ".join(self.redact(_server_words(response)).split()),
            status=status,
            lasting=status < 500 and status not in NOT_FOR_ALL,
            retry_after=_retry_after(response.headers.get("retry-after", "")),
        )


@dataclass(eq=False)
class _Call(Generic[T]):
    """A call that waits or is in flight; `before` holds the endpoints' failures when it is queued."""

    send: Callable[[Endpoint], Awaitable[T]]
    result: asyncio.Future[T]
    before: dict[Endpoint, int]
    failed: Counter[Endpoint] = field(default_factory=Counter)
    refused: set[Endpoint] = field(default_factory=set)
    last: Endpoint | None = None
    fault: Fault | None = None
    task: asyncio.Task[None] | None = None


class Endpoints:
    """Makes calls at the endpoints; all methods run in one event loop.

    Args:
        endpoints: The servers, at least one.
        in_flight: Calls in flight per endpoint.
        tries: Failures of a call at one endpoint after which it is given up there.
        backoff: Seconds of the first rest; doubles with every failure in a row.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, in_flight: int, tries: int, backoff: float) -> None:
        self.endpoints = tuple(endpoints)
        self.in_flight, self.tries, self.backoff = in_flight, tries, backoff
        self._waiting: deque[_Call[Any]] = deque()

    async def call(self, send: Callable[[Endpoint], Awaitable[T]]) -> T:
        """The result of `send` at the first endpoint at which it raises no `Fault`; `GivenUp` if there is none."""
        before = {endpoint: endpoint.failures for endpoint in self.endpoints}
        call = _Call(send, asyncio.get_running_loop().create_future(), before)
        self._enqueue(call)
        try:
            return await call.result
        finally:
            if call.task is not None:
                call.task.cancel()

    async def reset(self) -> None:
        """Close all connections and forget all failures and rests: their timers end with the event loop."""
        self._waiting.clear()
        for endpoint in self.endpoints:
            for client in endpoint.clients:
                await client.aclose()
            endpoint.clients, endpoint.idle = [], []
            endpoint.in_flight = endpoint.failures = 0
            endpoint.failed_at = endpoint.rests_until = endpoint.wished_until = 0.0

    def _enqueue(self, call: _Call[Any]) -> None:
        self._waiting.append(call)
        self._dispatch()

    def _dispatch(self) -> None:
        """Send every waiting call that an endpoint has room for, first come first served."""
        rest: list[_Call[Any]] = []
        dead = {endpoint for endpoint in self.endpoints if endpoint.failures >= self.tries}
        while self._waiting:
            call = self._waiting.popleft()
            if call.result.done():
                continue
            usable = [endpoint for endpoint in self.endpoints if not self._is_over(call, endpoint)]
            if len(usable) < len(self.endpoints):  # one has had its tries: nobody waits for a dead one any more
                usable = [endpoint for endpoint in usable if endpoint not in dead]
            if not usable:
                call.result.set_exception(self._given_up(call))
            elif endpoint := self._choose(call, usable):
                endpoint.in_flight += 1
                call.task = asyncio.get_running_loop().create_task(self._attempt(call, endpoint))
            else:
                rest.append(call)
                if call.last is None and not dead:
                    break  # nothing sets this call apart from the ones behind it: they must wait too
        self._waiting.extendleft(reversed(rest))

    def _choose(self, call: _Call[Any], usable: Sequence[Endpoint]) -> Endpoint | None:
        """The endpoint with the least expected wait; None if none is awake or the best one is full."""
        now = _now()
        awake = [endpoint for endpoint in usable if endpoint.rests_until <= now]
        others = [endpoint for endpoint in awake if endpoint is not call.last and not endpoint.failures]
        ready = [e for e in others or awake if self._room(e) or (e.latency is not None and not e.failures)]
        if not ready:
            return None
        best = min(ready, key=lambda e: (e.refusing, (e.in_flight + 1) * (e.latency or 0.0)))
        return best if self._room(best) else None

    def _room(self, endpoint: Endpoint) -> bool:
        if endpoint.failures:
            return endpoint.in_flight < 1
        if endpoint.latency is None and len(self.endpoints) > 1:
            return endpoint.in_flight < min(UNKNOWN_LATENCY, self.in_flight)
        return endpoint.in_flight < self.in_flight

    def _is_over(self, call: _Call[Any], endpoint: Endpoint) -> bool:
        """Whether the endpoint has failed this call, or others while it waited, too often to be asked again."""
        silent = endpoint.failures - call.before[endpoint]
        return endpoint in call.refused or call.failed[endpoint] >= self.tries or silent >= self.tries

    async def _attempt(self, call: _Call[Any], endpoint: Endpoint) -> None:
        """Make a call at an endpoint: settle it, or have it tried again."""
        started = _now()
        try:
            result = await call.send(endpoint)
        except Fault as fault:
            self._failed(endpoint, fault, started)
            self._try_again(call, endpoint, fault)
        except Exception as error:
            call.result.set_exception(error)
            raise
        else:
            self._answered(endpoint, started)
            if not call.result.done():
                call.result.set_result(result)
        finally:
            endpoint.in_flight -= 1
            self._dispatch()

    def _answered(self, endpoint: Endpoint, started: float) -> None:
        seconds = _now() - started
        endpoint.latency = seconds if endpoint.latency is None else 0.8 * endpoint.latency + 0.2 * seconds
        endpoint.failures, endpoint.refusing = 0, False
        endpoint.rests_until = endpoint.wished_until

    def _failed(self, endpoint: Endpoint, fault: Fault, started: float) -> None:
        """Make an endpoint rest; a call that was in flight at the last failure tells nothing new."""
        endpoint.fault, endpoint.refusing = fault, fault.lasting
        now = _now()
        if fault.retry_after:
            endpoint.wished_until = max(endpoint.wished_until, now + min(fault.retry_after, LONGEST_WISH))
            self._rest_until(endpoint, endpoint.wished_until)
        if fault.lasting or started < endpoint.failed_at:
            return
        endpoint.failures, endpoint.failed_at = endpoint.failures + 1, now
        if endpoint.latency is not None:
            endpoint.latency = max(endpoint.latency, 0.8 * endpoint.latency + 0.2 * (now - started))
        if not fault.garbled or endpoint.failures >= GARBLED:
            self._rest_until(endpoint, now + self._pause(endpoint.failures))
            _log.info("%s rests %.2f s: %s", endpoint.host, endpoint.rests_until - now, fault)

    def _rest_until(self, endpoint: Endpoint, until: float) -> None:
        endpoint.rests_until = max(endpoint.rests_until, until)
        asyncio.get_running_loop().call_later(max(0.0, endpoint.rests_until - _now()) + 1e-3, self._dispatch)

    def _try_again(self, call: _Call[Any], endpoint: Endpoint, fault: Fault) -> None:
        """Queue a call again: at once if another endpoint may take it, else after a pause."""
        call.last, call.fault = endpoint, fault
        call.failed[endpoint] += 1
        if fault.lasting:
            call.refused.add(endpoint)
        elsewhere = any(e is not endpoint and not e.failures and not self._is_over(call, e) for e in self.endpoints)
        if fault.lasting or elsewhere or self._is_over(call, endpoint):
            self._waiting.append(call)  # `_attempt` dispatches at its end
        else:
            asyncio.get_running_loop().call_later(self._pause(call.failed[endpoint]), self._enqueue, call)

    def _pause(self, failures: int) -> float:
        """Seconds of pause after some failures in a row; random, so that many clients do not return at once."""
        return min(LONGEST_REST, self.backoff * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)

    def _given_up(self, call: _Call[Any]) -> GivenUp:
        endpoint = call.last or max(self.endpoints, key=lambda e: e.failures)
        tries = call.failed[endpoint]
        if endpoint not in call.refused:  # it waited while others failed there
            tries = max(tries, min(endpoint.failures - call.before[endpoint], self.tries))
        return GivenUp(endpoint.host, call.fault or endpoint.fault or Fault("no answer"), tries)


def _now() -> float:
    """Seconds on the event loop's clock."""
    return asyncio.get_running_loop().time()


def connector(url: str, timeout: float, headers: Mapping[str, str] | None = None) -> Callable[[], httpx.AsyncClient]:
    """Makes clients of a server; certificates are loaded once, and not at all without TLS."""
    parsed = httpx.URL(url)
    local = parsed.host in ("127.0.0.1", "localhost", "::1")
    verify = httpx.create_ssl_context() if parsed.scheme == "https" else False

    def connect() -> httpx.AsyncClient:  # not a partial, whose repr would tell the key
        return httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT), pool=None),
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


def _server_words(response: httpx.Response) -> str:
    """The message in a server's error, in any of the usual forms."""
    try:
        body = json.loads(response.content)
    except ValueError:
        return response.text[:1000]
    error = body.get("error", body) if isinstance(body, dict) else body
    words = error.get("message") or error.get("detail") if isinstance(error, dict) else None
    return str(words or error)


def _retry_after(value: str) -> float:
    """Seconds in a Retry-After header, which holds seconds or a date; 0 for none."""
    with suppress(ValueError):
        return max(0.0, float(value))
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
