"""One judge three ways: in this process, behind `judge serve`, behind a real vLLM. Run by `make test-vllm`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from editr1.evaluation.agreement.toy_pairs import toy_pairs
from editr1.judges.base import JudgeRequest, Score
from editr1.judges.open import open_judge, parse_judge
from editr1.toy.assets import toy_path

ROOT = Path(__file__).parents[3]
SERVE = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--limit-mm-per-prompt", '{"image":2}']
START_MAX = 300  # seconds


def vllm() -> str | None:
    """The vLLM to test with: EDITR1_VLLM, the one that scripts/vllm_cpu_venv.sh makes, or one on the path."""
    own = ROOT / "build" / "vllm-venv" / "bin" / "vllm"
    return os.environ.get("EDITR1_VLLM") or (str(own) if own.is_file() else shutil.which("vllm"))


@contextmanager
def running(command: Sequence[str], port: int, log: Path, **environment: str) -> Iterator[str]:
    """The server's URL, once it is healthy; its log's end where it does not come up."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment})
    try:
        for _ in range(START_MAX):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(1)
        else:
            pytest.fail(f"not up after {START_MAX} s: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def requests() -> list[JudgeRequest]:
    return [JudgeRequest(pair.sample(), edit()) for pair in toy_pairs(32) for edit in (pair.edit_a, pair.edit_b)]


def served(url: str, requests: Sequence[JudgeRequest]) -> list[Score]:
    settings = f"openai:{url}?model=judge&template=brief&order=prefix&timeout=120"
    return open_judge(parse_judge(settings)).score(requests)


def assert_equal(ours: Sequence[Score], theirs: Sequence[Score]) -> None:
    assert len(ours) == len(theirs) == 64
    for one, other in zip(ours, theirs, strict=True):
        assert one.value is not None and other.value is not None, other.reason
        assert abs(one.value - other.value) < 1e-3 and other.bound == 0


def test_judge_serve_gives_the_scores_of_this_process(tmp_path: Path, requests: list[JudgeRequest]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "editr1", "judge", "serve", "--model", "toy:judge", "--port", str(port)]
    with running(command, port, tmp_path / "log") as url:
        assert_equal(open_judge(parse_judge("toy")).score(requests), served(url, requests))


@pytest.mark.vllm
@pytest.mark.skipif(vllm() is None, reason="no vLLM here: scripts/vllm_cpu_venv.sh makes one, or set EDITR1_VLLM")
def test_vllm_gives_the_scores_of_this_process(tmp_path: Path, requests: list[JudgeRequest]) -> None:
    port = free_port()
    name = ["--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port)]
    command = [str(vllm()), "serve", str(toy_path("judge")), *name, *SERVE]
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with running(command, port, tmp_path / "log", **offline) as url:
        assert_equal(open_judge(parse_judge("toy")).score(requests), served(url, requests))
