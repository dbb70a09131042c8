"""Before a run, every judge and reward says what is wrong with it, whatever its kind, and no weights are loaded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import transformers
from PIL import Image
from pydantic import TypeAdapter

from editr1.config.rewards import JudgeConfig, RewardConfig
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest
from editr1.judges.check import check_judge, check_reward
from editr1.judges.open import check_processor
from tests.judges.fault_server import FaultServer, always, times
from tests.judges.service import service
from tests.judges.tiny_judge import build_tiny_judge

PICTURE = Image.new("RGB", (32, 32), "red")
REQUESTS = [JudgeRequest(EditSample(f"k{i}", PICTURE, "make it blue"), PICTURE) for i in range(3)]
FUNCTIONS = """
def fine(*_): return 0.5
def unsure(*_): return None
def large(*_): return 7
def raises(*_):
    raise KeyError("colour")
"""


def reward(**settings: Any) -> list[str]:
    return check_reward(TypeAdapter(RewardConfig).validate_python(settings), REQUESTS)


def servers(*urls: str, **settings: Any) -> list[str]:
    return check_judge(JudgeConfig(endpoints=urls, model="m", **{"timeout": 5.0, **settings}), REQUESTS)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_judge(tmp_path_factory.mktemp("judge") / "whole")


@pytest.mark.parametrize("method", ["score_logit", "yes_no", "score_sampling", "cot_logit", "cot_sampling", "ranking"])
def test_a_server_that_answers_has_no_fault_whatever_the_method_and_is_asked_little(method: str) -> None:
    with FaultServer() as server:
        faults = servers(server.url, method=method)
    assert faults == [] or method == "cot_logit"  # this server writes no thoughts
    assert 1 <= server.chats <= 2


def test_a_server_that_cannot_be_reached_is_told_beside_one_that_answers() -> None:
    with FaultServer() as server:
        (fault,) = servers(server.url, "http://127.0.0.1:9/v1")
    assert "127.0.0.1:9" in fault and "Connection refused" in fault and fault.endswith("or judge.endpoints")


def test_a_server_without_logprobs_is_told_when_the_method_reads_them() -> None:
    with FaultServer(always("null_logprobs")) as server:
        (fault,) = servers(server.url)
        assert "logprob" in fault
        assert servers(server.url, method="score_sampling") == []


def test_a_server_that_is_busy_for_a_moment_has_no_fault() -> None:
    with FaultServer(times("http_503", 1)) as server:
        assert servers(server.url) == []


def test_an_interrupt_does_not_wait_for_a_server_that_hangs() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs beside it without

    def stop() -> None:
        while not server.chats:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    with FaultServer(always("hang"), hang=30.0) as server:
        threading.Thread(target=stop).start()
        with pytest.raises(KeyboardInterrupt):
            servers(server.url, timeout=60.0)
        assert server.now == 1  # it is still busy with the question


def test_a_criterion_or_a_template_that_is_not_there_is_told_without_asking() -> None:
    with FaultServer() as server:
        assert "no 'beauty'" in servers(server.url, criteria={"beauty": 1.0})[0]
        assert "nowhere.yaml" in servers(server.url, template="nowhere.yaml")[0]
        assert server.chats == 0


def test_a_judge_in_this_process_is_checked_without_loading_it(
    judge_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", refuse)
    assert check_judge(JudgeConfig(path=str(judge_folder)), REQUESTS) == []
    assert check_judge(JudgeConfig(path="toy:judge"), REQUESTS) == []
    check_processor(JudgeConfig(path=str(judge_folder)))
    with pytest.raises(UserError, match="not as one token"):
        check_processor(JudgeConfig(path=str(judge_folder), scale=(0, 100)))
    assert "no folder at" in check_judge(JudgeConfig(path=str(tmp_path / "none")), REQUESTS)[0]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model.safetensors", None, "holds no safetensors file"),
        ("model.safetensors", "", "cannot read the weights"),
        ("config.json", None, "has no config.json: copy all files"),
        ("processor_config.json", None, "has no processor_config.json or preprocessor_config.json: save"),
        ("tokenizer*", None, "has no tokenizer* or vocab* or *.model or tekken.json: save"),
        ("tokenizer.json", "{", "tokenizer.json is broken"),
    ],
)
def test_a_folder_that_lacks_a_part_of_its_model_is_told_by_its_files(
    judge_folder: Path, tmp_path: Path, file: str, content: str | None, words: str
) -> None:
    shutil.copytree(judge_folder, tmp_path / "j")
    for path in (tmp_path / "j").glob(file):
        path.unlink() if content is None else path.write_text(content)
    (fault,) = check_judge(JudgeConfig(path=str(tmp_path / "j")), REQUESTS)
    assert words in fault


def test_a_function_is_called_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checked_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    assert reward(kind="function", path="checked_functions:fine") == []
    assert reward(kind="function", path="checked_functions:unsure") == []
    (fault,) = reward(kind="function", path="checked_functions:large")
    assert "checked_functions:large" in fault and "7" in fault
    (fault,) = reward(kind="function", path="checked_functions:raises")
    assert "KeyError: 'colour' (checked_functions.py:6)" in fault
    (fault,) = reward(kind="function", path="checked_functions:none")
    assert "cannot be loaded" in fault


def test_a_service_is_asked() -> None:
    with service([(200, b'{"score": 0.25}')]) as (url, bodies):
        assert reward(kind="http", path=url) == [] and len(bodies) == 3
    with service([(200, b'{"score": null, "reason": "no face"}')]) as (url, _):
        assert reward(kind="http", path=url) == [], "it applies to other items"
    with service([(200, b'{"score": 7}')]) as (url, _):
        assert "gave 7" in reward(kind="http", path=url)[0]
        assert reward(kind="http", path=url, optional=True) == []
    assert "ConnectError" in reward(kind="http", path="http://127.0.0.1:9/score")[0]
    assert "needs a URL" in reward(kind="http", path="nowhere")[0]


def test_models_of_other_rewards_must_be_there(judge_folder: Path, tmp_path: Path) -> None:
    assert "no model in /nowhere" in reward(kind="clip_image", path="/nowhere")[0]
    assert reward(kind="clip_image", path=str(judge_folder)) == []
    faults = reward(kind="editscore", path=str(judge_folder), lora=str(tmp_path / "none"))
    assert any("no folder at" in fault for fault in faults)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert any("holds a llama" in fault for fault in reward(kind="editscore", path=str(tmp_path)))


def test_packages_of_other_rewards_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.judges.check.find_spec", lambda name: None)
    assert "pip install 'editr1[ocr]'" in reward(kind="ocr")[0]
    assert "pip install editscore" in reward(kind="editscore", path="/nowhere")[-1]
    assert reward(kind="preservation") == []


def test_another_judge_is_checked_as_a_judge() -> None:
    (fault,) = reward(kind="judge", judge={"endpoints": ["http://127.0.0.1:9/v1"], "model": "m"})
    assert "Connection refused" in fault
