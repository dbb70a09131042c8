"""Several servers that answer the same questions: which one to ask next, what to try again, when to give up.

A call goes to the endpoint with the least expected wait, (calls in flight + 1) × mean latency. An endpoint that fails
rests, each time twice as long, and then gets one call at a time until it answers; meanwhile the others are used. A call
is given up when every endpoint has failed it often enough, so a dead endpoint costs no tries of a live one. None of
this changes an answer, only the time when it comes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from editr1.judges.models.wire import LINE, Fault, Wire

T = TypeVar("T")
LONGEST_REST = 30.0  # seconds of backoff
LONGEST_WISH = 300.0  # longest pause in seconds that a server gets by Retry-After
UNKNOWN_LATENCY = 2  # calls in flight at an endpoint that has not answered yet, if there are others
GARBLED = 3  # unreadable answers in a row after which an endpoint rests

_log = logging.getLogger(__name__)


class GivenUp(Exception):
    """No endpoint answered a call; the text says why, by the last `fault` and the `tries` at the last `host`."""

    def __init__(self, host: str, fault: Fault, tries: int) -> None:
        times = "1 try" if tries == 1 else f"{tries} tries"
        super().__init__(f"{fault.what} from {host} after {times}: {fault.detail}"[:LINE].rstrip(": "))
        self.fault, self.tries = fault, tries


@dataclass(eq=False)
class Endpoint:
    """One server.

    Attributes:
        wire: Its requests.
        in_flight: Calls in flight.
        latency: Moving mean over its answers in seconds; None before the first.
        failures: Failures in a row; calls that fail together count as one.
        refusing: Whether its last answer says that it does not take such calls.
    """

    wire: Wire
    in_flight: int = 0
    latency: float | None = None
    failures: int = 0
    refusing: bool = False
    failed_at: float = 0.0
    rests_until: float = 0.0
    wished_until: float = 0.0
    fault: Fault | None = None

    @property
    def url(self) -> str:
        """Base of its interface, without a slash at the end."""
        return self.wire.url

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return httpx.URL(self.url).netloc.decode()


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
            await endpoint.wire.close()
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
            _log.debug("%s rests %.2f s: %s", endpoint.host, endpoint.rests_until - now, fault)

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
