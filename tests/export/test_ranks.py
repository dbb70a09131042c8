"""What a run of two ranks, sharded or not, exports is what the run of one process exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from typer.testing import CliRunner

from editr1.cli import main as cli
from tests.cli.test_torchrun import train

FORMS = {
    "diffusers": [],
    "peft": ["--format", "peft"],
    "comfyui": ["--format", "comfyui"],
    "last": ["--no-ema"],
    "merged": ["--merge"],
}
RUNS = {"one": (1, []), "two": (2, []), "sharded": (2, ["parallel.shard=2"])}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN/FORM for each run and form."""
    folder = tmp_path_factory.mktemp("exports")
    for run, (ranks, overrides) in RUNS.items():
        out = folder / "runs" / run
        train(ranks, "toy", out, "steps=2", *overrides)
        for form, options in FORMS.items():
            arguments = ["export", str(out), "--to", str(folder / run / form), *options]
            result = CliRunner().invoke(cli.app, arguments)
            assert result.exit_code == 0, result.stderr
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {
        f"{path.relative_to(folder)}: {name}": file.get_tensor(name)
        for path in sorted(folder.rglob("*.safetensors"))
        for file in [safe_open(path, framework="pt")]
        for name in file.keys()  # noqa: SIM118 (no mapping)
    }


def headers_of(folder: Path) -> list[dict[str, str]]:
    """The headers of all weights, without the checksum of a config, which names the run's folder."""
    headers = [dict(safe_open(path, framework="pt").metadata() or {}) for path in sorted(folder.rglob("*.safetensors"))]
    return [{name: value for name, value in header.items() if name != "config_sha256"} for header in headers]


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("run", ["two", "sharded"])
def test_a_run_of_two_ranks_exports_what_one_process_exports(exports: Path, run: str, form: str) -> None:
    one, other = exports / "one" / form, exports / run / form
    names = [sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) for folder in (one, other)]
    assert names[0] == names[1] and headers_of(one) == headers_of(other)
    for path in one.rglob("*.json"):
        assert json.loads(path.read_text()) == json.loads((other / path.relative_to(one)).read_text()), path
    expected, got = tensors_of(one), tensors_of(other)
    assert expected.keys() == got.keys() and expected
    assert all(expected[name].dtype == got[name].dtype for name in expected)
    trained = [name for name in expected if not torch.equal(expected[name], got[name])]
    assert all("transformer" in name or "lora" in name for name in trained)
    flat = [torch.cat([each[name].double().flatten() for name in expected]) for each in (expected, got)]
    assert (flat[1] - flat[0]).norm() <= 1e-5 * flat[0].norm()
