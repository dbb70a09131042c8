"""What a run keeps about the machine and the code that made it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from editr1.algorithms.nft import NFT
from editr1.training.session import command, commit, kept_session
from tests.training.runs import Make

CPU = torch.device("cpu")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_commit_names_changes_and_is_none_outside_of_a_repository(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "new").write_text("2")
    assert commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == f"{head} with changes"


def test_command_is_one_that_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/editr1/__main__.py", "train", "a.yaml", "out=my run"])
    assert command() == "editr1 train a.yaml 'out=my run'"


def test_peak_of_memory_is_written_even_if_the_session_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), kept_session(tmp_path, CPU, NFT()):
        before = json.loads((tmp_path / "session.json").read_text())
        raise KeyboardInterrupt
    after = json.loads((tmp_path / "session.json").read_text())
    assert {**before, "peak_memory_gib": after["peak_memory_gib"]} == after
    assert 0.05 < after["peak_memory_gib"]["process"] < 500
    assert "CPU cores" in after["hardware"] and torch.__version__.startswith(after["versions"]["torch"])


def test_training_keeps_its_session(make: Make) -> None:
    trainer = make(steps=1)
    trainer.train()
    session = json.loads((trainer.out / "session.json").read_text())
    assert session["peak_memory_gib"] and session["float32_products"] == torch.get_float32_matmul_precision()
