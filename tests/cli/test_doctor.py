"""`editr1 doctor`: a machine, a judge, a run; what is wrong is told with exit code 1 and no secret is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import editr1
from editr1.cli import machine
from editr1.cli import main as cli
from editr1.cli.machine import examine_machine
from tests.judges.fault_server import FaultServer, always
from tests.judges.tiny_judge import build_tiny_judge
from tests.report.synthetic import write_metrics

NEEDS = ["torch>=2.6", "pillow<3", "absent>=1", "resvg-py>=0.2; extra == 'toy'", "gone>=1; extra == 'nf4'"]
SECRET = "sk-one-two-three"


def doctor(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, ["doctor", *arguments])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is wrong, whatever this one lacks."""
    monkeypatch.setattr(machine, "requires", lambda name: ["torch>=2.6", *NEEDS[3:]])
    monkeypatch.setattr(machine, "FULL", 0.0)


def test_a_healthy_machine_is_told_in_json(whole: None) -> None:
    code, out, err = doctor("--json")
    report = json.loads(out)
    assert (code, err, report["healthy"], report["faults"]) == (0, "", True, [])
    assert report["versions"]["editr1"] == editr1.__version__
    assert report["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    cpu = report["devices"]["cpu"]
    assert 0 < cpu["free_gib"] <= cpu["memory_gib"] == round(os.sysconf("SC_PHYS_PAGES") * 4096 / 2**30, 1)
    assert report["disk"]["working folder"]["free_gib"] > 0


def test_packages_that_are_missing_or_of_another_version_are_faults_and_those_of_extras_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"torch": "2.7", "pillow": "4.0", "resvg-py": "0.5"}
    monkeypatch.setattr(machine, "requires", lambda name: NEEDS)
    monkeypatch.setattr(machine, "_version", versions.get)
    found = examine_machine([])
    faults = [fault for fault in found.faults if "pip install -U editr1" in fault]
    assert faults == ["pillow 4.0 is not <3: pip install -U editr1", "absent is missing: pip install -U editr1"]
    assert found.facts["extras"]["toy"] == "present"
    assert found.facts["extras"]["nf4"] == "gone is missing: pip install 'editr1[nf4]'"
    assert "dev" not in found.facts["extras"]


def test_a_package_that_is_not_installed_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "requires", unknown)
    assert any("editr1 is not installed" in fault for fault in examine_machine([]).faults)


def test_a_gpu_has_its_free_memory_and_one_that_fails_is_a_fault(whole: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(device: torch.device) -> tuple[int, int]:
        if device.index == 1:
            raise RuntimeError("CUDA error: device busy\nmore words")
        return 30 * 2**30, 80 * 2**30

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = SimpleNamespace(name="A GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    found = examine_machine([])
    assert found.facts["devices"]["cuda:0"] == {"name": "A GPU", "free_gib": 30.0, "memory_gib": 80.0}
    assert found.faults == ["cuda:1 (A GPU) cannot be used: CUDA error: device busy; see nvidia-smi"]


def test_a_driver_whose_gpu_torch_does_not_see_is_a_fault(
    whole: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    assert examine_machine([]).faults == []
    (tmp_path / "version").touch()
    (fault,) = examine_machine([]).faults
    assert fault.startswith(f"there is an NVIDIA driver, and torch {torch.__version__} sees no GPU")


def test_a_full_disk_is_wrong_and_exits_with_1(whole: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FULL", 1e9)
    code, out, _ = doctor()
    assert code == 1 and "WRONG" in out and "GiB free: make room" in " ".join(out.split())


def test_judges_that_answer_and_judges_that_do_not(whole: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with FaultServer() as good, FaultServer(always("null_logprobs")) as bad:
        code, out, err = doctor("--judge", f"{good.url}?model=m", "--judge", f"openai:{bad.url}?model=m", "--json")
    report = json.loads(out)
    assert code == 1 and SECRET not in out + err
    assert report["judges"] == {good.url: "m, score_logit: answers", bad.url: "m, score_logit: does not work"}
    (fault,) = report["faults"]
    assert "no logprobs" in fault and bad.url in fault


def test_the_folder_of_a_judge_is_looked_at_without_its_weights(whole: None, tmp_path: Path) -> None:
    folder = build_tiny_judge(tmp_path / "judge")
    code, out, _ = doctor("--judge", str(folder), "--json")
    assert (code, json.loads(out)["judges"]) == (0, {str(folder): f"{folder}, score_logit: its files are whole"})
    (folder / "tokenizer.json").write_text("{")
    code, out, _ = doctor("--judge", str(folder), "--json")
    assert code == 1 and "tokenizer.json is broken" in json.loads(out)["faults"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--judge", "http://127.0.0.1:9/v1"], "judge.model must say"),
        (["--judge", f"http://me:{SECRET}@127.0.0.1:9/v1?model=m"], "holds a user or a password"),
        (["--judge", f"openai:http://me:{SECRET}@127.0.0.1:9/v1"], "holds a user or a password"),
        (["nowhere"], "holds no run"),
        ([".", "--judge", "toy"], "--judge is asked without a run"),
    ],
)
def test_bad_input_is_one_line_and_no_secret(arguments: list[str], words: str) -> None:
    code, out, err = doctor(*arguments)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
    assert SECRET not in err


def test_a_healthy_run_is_healthy(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    check = {"replay_error": 0.0, "trained": 5, "layers": 9, "steps": 5, "modules": 5, "silent": [], "dead_ends": []}
    (tmp_path / "run/self_check.json").write_text(json.dumps(check))
    code, out, _ = doctor(str(tmp_path / "run"))
    words = " ".join(out.split())
    assert code == 0 and "40 of 40 steps are done" in words and words.endswith("Nothing is wrong.")
    assert "sampled = trained: replay error 0, 5 of 9 layers are trained, every trained module has a gradient" in words


def test_a_sick_run_exits_with_1_and_names_the_setting(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    file = tmp_path / "run/metrics.jsonl"
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**row, "grad_norm": 9.0, "ties": 0.8}) + "\n" for row in rows))
    code, out, _ = doctor(str(tmp_path / "run"), "--json")
    report = json.loads(out)
    assert code == 1 and not report["healthy"] and (report["steps"], report["of"]) == (40, 40)
    wrong = {finding["name"]: finding["text"] for finding in report["findings"] if finding["wrong"]}
    assert wrong.keys() == {"gradient always clipped", "judge ties"}
    assert "In 80% of the pairs" in wrong["judge ties"] and "optim.grad_clip" in wrong["gradient always clipped"]


@pytest.mark.parametrize("content", ['{"replay_error": 0}', "[]", '{"trained": -1'])
def test_a_damaged_self_check_is_one_line(tmp_path: Path, content: str) -> None:
    write_metrics(tmp_path / "run")
    (tmp_path / "run/self_check.json").write_text(content)
    code, _, err = doctor(str(tmp_path / "run"))
    assert code == 2 and "self_check.json" in err and err.count("\n") == 1


def test_without_a_run_and_a_judge_no_model_library_is_imported() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from editr1.cli.main import app; "
        "CliRunner().invoke(app, ['doctor']); "
        "print([name for name in ('diffusers', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr
