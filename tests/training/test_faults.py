"""A run whose judge fails at random ends with the same weights as one whose judge does not; keys stay secret."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from editr1.errors import UserError
from editr1.files import read_lines
from editr1.judges.mllm import MLLMJudge
from editr1.judges.prompts import load_prompt
from tests.judges.client import remote_model
from tests.judges.fault_server import BODY_FAULTS, WIRE_FAULTS, FaultServer, Plan, always, never, share
from tests.training.runs import Make, rows_of, tensors_of

KEY = "sk-planted-9f3b7c51"
SIZES = {
    "rollout__group_size": 4,
    "steps": 3,
    "algorithm__std": "global",
    "judge": {"endpoints": ["http://h/v1"], "model": "m"},
}


def train(make: Make, out: str, *urls: str, tries: int = 30, **changes: Any) -> Path:
    model = remote_model(*urls, model="m", tries=tries, backoff=0.002, timeout=0.5)
    try:
        trainer = make(out=out, **SIZES | changes)
        trainer.judge = trainer.collector.judge = MLLMJudge(model, load_prompt("brief", "prefix"), method="score_logit")
        trainer.train()
        return trainer.out
    finally:
        model.close()


@pytest.fixture
def straight(make: Make) -> Path:
    with FaultServer() as server:
        return train(make, "straight", server.url)


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = (tensors_of(path / "checkpoints" / "step_000003") for path in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rows_of(one) == rows_of(other)
    rewards = [row["reward_std_within"] for row in rows_of(one)]
    assert min(rewards) > 0.01 and [row["unscored"] for row in rows_of(one)] == [0, 0, 0]


def test_a_third_of_the_calls_failing_changes_no_bit_of_the_weights(make: Make, straight: Path) -> None:
    with FaultServer(share(0.3, (*WIRE_FAULTS, *BODY_FAULTS), seed=0), hang=0.6) as server:
        other = train(make, "faulty", server.url)
        assert server.chats > 1.2 * 3 * 2 * 4
    assert_same(straight, other)


def test_a_dead_endpoint_beside_a_live_one_changes_no_bit_of_the_weights(make: Make, straight: Path) -> None:
    with socket.socket() as closed, FaultServer() as server:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        assert_same(straight, train(make, "dead", dead, server.url))


def test_a_judge_that_stays_dead_stops_the_run_with_a_checkpoint_and_its_reason(make: Make, tmp_path: Path) -> None:
    with FaultServer(always("http_503")) as server, pytest.raises(UserError, match=r"last 2 steps: .*503"):
        train(make, "out", server.url, tries=2, failures={"steps": 2})
    assert (tmp_path / "out" / "checkpoints" / "step_000002").is_dir()
    rows = read_lines(tmp_path / "out" / "metrics.jsonl")
    assert [row["reward_mean"] for row in rows] == [None, None] and "503" in rows[0]["reasons"][0]


@pytest.mark.parametrize("plan", [never(), share(0.5, ("http_500", "http_429", "reset"), seed=1)])
def test_a_planted_key_is_in_no_file_log_or_message_of_a_run(
    make: Make, tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with FaultServer(plan) as server:
        out = train(make, "out", server.url, steps=2)
        assert any(KEY in str(headers) for headers in server.headers)  # it was sent
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8 and out in files[0].parents
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in caplog.text


def test_a_refused_key_is_not_in_the_message_that_stops_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer(always("http_401")) as server, pytest.raises(UserError, match="401") as caught:
        train(make, "out", server.url, failures={"steps": 1})
    assert KEY not in str(caught.value)
