"""Which endpoint is asked: dead, slow, full, resting and returning ones, on real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from editr1.judges.base import Answer, Ask
from tests.judges.fault_server import FaultServer, Plan, always, never, times
from tests.judges.models.test_remote import DIGITS, client, without_time


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
def test_a_dead_endpoint_beside_a_live_one_costs_no_answer_and_little_time(death: str, right: list[Answer]) -> None:
    plan: Plan = never() if death == "refused" else always(death)
    with FaultServer(plan, hang=5.0) as dead, FaultServer(latency=0.005) as live:
        url = f"http://127.0.0.1:{free_port()}/v1" if death == "refused" else dead.url
        with client(url, live.url, tries=3, timeout=0.5, in_flight=8) as model:
            started = time.monotonic()
            assert without_time(model.answer(asks(100))) == right
            assert time.monotonic() - started < 2.5
    assert live.chats == 100
    assert dead.chats < 60


def test_a_slow_endpoint_gets_few_requests(right: list[Answer]) -> None:
    with (
        FaultServer(latency=0.5) as slow,
        FaultServer(latency=0.005) as fast,
        client(slow.url, fast.url, in_flight=8) as model,
    ):
        assert without_time(model.answer(asks(100))) == right
    assert slow.chats <= 4


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
        started = time.monotonic()
        answers = model.answer(asks(100))
        assert time.monotonic() - started < 2
    assert all(answer.reason and answer.reason.startswith("HTTP 503 from 127.0.0.1:") for answer in answers)
    assert server.chats < 20


def test_an_answer_that_is_always_garbled_stops_nobody_else(right: list[Answer]) -> None:
    class Poisoned(FaultServer):
        def complete(self, body: dict[str, object]) -> dict[str, object]:
            reply = super().complete(body)
            return {"choices": []} if 'edit 7"' in json.dumps(body).replace("\\", "") else reply

    with Poisoned(latency=0.005) as server, client(server.url, in_flight=4) as model:
        answers = without_time(model.answer(asks(100)))
    assert [a for i, a in enumerate(answers) if i != 7] == [a for i, a in enumerate(right) if i != 7]
    assert answers[7].reason is not None and "after 8 tries: no choices" in answers[7].reason
