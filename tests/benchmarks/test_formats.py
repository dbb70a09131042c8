"""benchmarks/formats.py with a small layer: what it counts, and what it says of ways that a machine lacks."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_ways_are_compared_with_the_first_one_and_those_that_are_not_there_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kept are the input, x A of rank 32, A and B, all in the products' format."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    formats = import_module("formats")
    monkeypatch.delitem(sys.modules, "formats")
    monkeypatch.setattr(formats, "WIDTH", 64)
    monkeypatch.setattr(formats, "TOKENS", 8)
    monkeypatch.setattr(formats, "QUANTISED", {"unknown": "NoSuchConfig"})
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    monkeypatch.setattr(formats, "import_module", import_error)
    formats.main(1)
    told = json.loads(capsys.readouterr().out)
    lora, rollout = told["lora"], told["rollout"]
    numbers = 8 * 64 + 8 * 32 + 2 * 32 * 64
    assert [lora[way]["kept_bytes"] for way in ("no LoRA", "float32", "bfloat16")] == [0, 4 * numbers, 2 * numbers]
    assert lora["no LoRA"]["ratio"] == 1 and lora["float32"]["ms"] > 0
    assert lora["TF32"]["failed"].startswith("memory.tf32: cpu here has no TF32")
    assert rollout["bfloat16"]["difference"] == 0
    assert rollout["unknown"] == {"failed": "No module named 'torchao'"}


def import_error(name: str) -> None:
    raise ModuleNotFoundError("No module named 'torchao'")
