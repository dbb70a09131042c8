"""The seal of a checkpoint holds the hashes of its files and of itself, and is read wherever the folder lies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from editr1.data.hashes import sha256_of
from editr1.errors import UserError
from editr1.training import seal as seals
from editr1.training.seal import fault, read_state, seal

STATE: dict[str, Any] = {"step": 7, "seconds": 1.5, "start": {"a": 0.1}, "place": 14, "config": {"b": [1, None, "ü"]}}
CONTENT = {"a.bin": b"a" * 1000, "inner/b.bin": b"", "inner/c.bin": bytes(range(256))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "step_000007"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    seal(folder, STATE)
    return folder


def test_a_seal_lists_sizes_and_hashes_of_all_files_and_a_hash_of_itself(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    assert state["files"] == {name: len(content) for name, content in CONTENT.items()}
    assert state["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    own = state.pop("seal")
    assert own == hashlib.sha256(json.dumps(state).encode()).hexdigest()
    assert state.items() >= {**STATE, "format": 2}.items()
    assert read_state(folder).items() >= STATE.items() and fault(folder, "") is None


def test_contents_are_read_only_where_they_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = sha256_of
    monkeypatch.setattr(seals, "sha256_of", lambda path: read.append(path.name) or original(path))
    assert fault(folder) is None and read == []
    assert fault(folder, "inner") is None and sorted(read) == ["b.bin", "c.bin"]
    (folder / "a.bin").write_bytes(b"b" * 1000)
    assert fault(folder) is None and fault(folder, "inner") is None
    assert fault(folder, "") == f"{folder / 'a.bin'}: its content is not what was written"
    assert fault(folder, "a.bin") is not None


def test_a_copy_under_another_name_is_whole_but_no_other_step_is_this_one(folder: Path) -> None:
    copy = folder.rename(folder.with_name("best"))
    assert fault(copy, "") is None
    other = copy.rename(copy.with_name("step_000008"))
    assert fault(other) == f"{other / 'state.json'}: it is of step 7"


def bits(content: bytes) -> Iterator[bytes]:
    """The content with one bit changed, at every seventh byte."""
    for place in range(0, len(content), 7):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_no_bit_of_a_state_changes_unseen(folder: Path) -> None:
    file, whole = folder / "state.json", read_state(folder)
    for content in bits(file.read_bytes()):
        file.write_bytes(content)
        try:
            assert read_state(folder) == whole  # a space became another one
        except UserError as error:
            assert str(file) in str(error) and "\n" not in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / "a.bin").chmod(0)
    assert "Permission denied" in str(fault(folder, ""))
