"""Which endpoint is asked: dead, slow, full, resting and returning ones, on real sockets."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import threading
import time
from collections import Counter
from typing import Any

import pytest

from editr1.judges.base import Answer, Ask
from editr1.judges.models.endpoints import Endpoint, Endpoints, GivenUp
from editr1.judges.models.wire import Fault, Wire
from tests.judges.client import DIGITS, client, without_time
from tests.judges.fault_server import FaultServer, Plan, always, never, times


def asks(count: int) -> list[Ask]:
    return [Ask((f"edit {number}",), choices=DIGITS) for number in range(count)]


@pytest.fixture(scope="module")
def right() -> list[Answer]:
    with FaultServer() as server, client(server.url) as model:
        return without_time(model.answer(asks(100)))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("death", ["refused", "hang", "http_503", "nan", "http_401"])
def test_a_dead_endpoint_beside_a_live_one_costs_no_answer(death: str, right: list[Answer]) -> None:
    plan: Plan = never() if death == "refused" else always(death)
    with FaultServer(plan, hang=5.0) as dead, FaultServer(latency=0.005) as live:
        url = f"http://127.0.0.1:{free_port()}/v1" if death == "refused" else dead.url
        with client(url, live.url, tries=3, timeout=0.5, in_flight=8) as model:
            assert without_time(model.answer(asks(100))) == right
    assert live.chats == 100
    assert dead.chats < 60


class Leap(selectors.DefaultSelector):
    """Waits by setting the clock ahead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class FakeTime(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Leap()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def call(
    count: int, latencies: dict[str, float], faults: dict[str, Fault] | None = None, **settings: Any
) -> tuple[Counter[str], list[str | BaseException], float]:
    """Calls per endpoint, results, and the seconds that they take, by a clock that knows no busy machine."""
    calls: Counter[str] = Counter()

    async def send(endpoint: Endpoint) -> str:
        calls[endpoint.url] += 1
        await asyncio.sleep(latencies[endpoint.url])
        if faults and endpoint.url in faults:
            raise faults[endpoint.url]
        return endpoint.url

    async def gather() -> list[str | BaseException]:
        servers = [Endpoint(Wire(url, 20.0)) for url in latencies]
        endpoints = Endpoints(servers, **{"in_flight": 8, "tries": 8, "backoff": 0.002, **settings})
        return await asyncio.gather(*(endpoints.call(send) for _ in range(count)), return_exceptions=True)

    loop = FakeTime()
    try:
        return calls, loop.run_until_complete(gather()), loop.time()
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("fault", "latency"),
    [
        (Fault("no answer", "ConnectError"), 0.0), (Fault("no answer", "timeout of 0.5 s"), 0.5),
        (Fault("HTTP 503", status=503), 0.005), (Fault("unusable answer", garbled=True), 0.005),
        (Fault("HTTP 401", status=401, lasting=True), 0.005),
    ],
)  # fmt: skip
def test_a_dead_endpoint_beside_a_live_one_costs_little_time(fault: Fault, latency: float) -> None:
    calls, results, seconds = call(100, {"http://dead": latency, "http://live": 0.005}, {"http://dead": fault}, tries=3)
    assert results == ["http://live"] * 100 and calls["http://live"] == 100
    assert calls["http://dead"] < 60 and seconds < 2.5


def test_a_slow_endpoint_gets_few_requests() -> None:
    calls, results, _ = call(100, {"http://slow": 0.5, "http://fast": 0.005})
    assert calls.total() == len(results) == 100
    assert calls["http://slow"] <= 4


def test_equal_endpoints_share_the_work(right: list[Answer]) -> None:
    with (
        FaultServer(latency=0.02) as first,
        FaultServer(latency=0.02) as second,
        client(first.url, second.url, in_flight=4) as model,
    ):
        assert without_time(model.answer(asks(100))) == right
    assert first.chats + second.chats == 100
    assert min(first.chats, second.chats) >= 25


def test_no_more_requests_are_in_flight_than_allowed(right: list[Answer]) -> None:
    with FaultServer(latency=0.01) as server, client(server.url, in_flight=5) as model:
        threads = [threading.Thread(target=model.answer, args=(asks(40),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.chats == 120
    assert server.most == 5


@pytest.mark.parametrize(("kind", "least"), [("http_429_seconds", 0.95), ("http_503_date", 0.9)])
def test_a_server_is_left_alone_as_long_as_it_asks(kind: str, least: float, right: list[Answer]) -> None:
    with FaultServer(times(kind, 1)) as server, client(server.url, in_flight=1) as model:
        assert without_time(model.answer(asks(3))) == right[:3]
    assert server.arrivals[1] - server.arrivals[0] >= least


def test_an_endpoint_that_dies_and_comes_back_is_used_again(right: list[Answer]) -> None:
    port = free_port()
    with client(f"http://127.0.0.1:{port}/v1", tries=40, backoff=0.01) as model:
        with FaultServer(port=port):
            assert without_time(model.answer(asks(5))) == right[:5]
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.extend(model.answer(asks(100))))
        asking.start()
        time.sleep(0.2)
        assert not answers
        with FaultServer(port=port) as server:
            asking.join(20)
            assert without_time(answers) == right
            assert server.chats == 100


def test_a_dead_server_fails_all_who_wait_for_it_together() -> None:
    with FaultServer(always("http_503"), latency=0.01) as server, client(server.url, in_flight=2, tries=4) as model:
        answers = model.answer(asks(100))
    assert all(answer.reason and answer.reason.startswith("HTTP 503 from 127.0.0.1:") for answer in answers)
    assert server.chats < 20
    fault = {"http://dead": Fault("HTTP 503", status=503)}
    calls, results, seconds = call(100, {"http://dead": 0.01}, fault, in_flight=2, tries=4)
    assert all(isinstance(result, GivenUp) for result in results) and len(results) == 100
    assert calls.total() < 20 and seconds < 2


def test_an_answer_that_is_always_garbled_stops_nobody_else(right: list[Answer]) -> None:
    class Poisoned(FaultServer):
        def complete(self, body: dict[str, object]) -> dict[str, object]:
            reply = super().complete(body)
            return {"choices": []} if 'edit 7"' in json.dumps(body).replace("\\", "") else reply

    with Poisoned(latency=0.005) as server, client(server.url, in_flight=4) as model:
        answers = without_time(model.answer(asks(100)))
    assert [a for i, a in enumerate(answers) if i != 7] == [a for i, a in enumerate(right) if i != 7]
    assert answers[7].reason is not None and "after 8 tries: no choices" in answers[7].reason
