"""Files of JSON lines: nothing is lost by a kill, nothing of other settings is mixed in or thrown away.

Locked files: one process at a time has them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from editr1.errors import UserError
from editr1.files import JsonLines, first_difference, locked, read_lines
from tests.held import held_by_another


def store(path: Path, **more: Any) -> JsonLines[dict[str, Any]]:
    return JsonLines(path, "rows", "take another file", load=dict, **more)


def test_rows_are_on_the_disk_when_append_returns_and_a_cut_off_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    lines = store(path, head={"steps": 4})
    assert lines.rows == [] and not path.exists()
    lines.append([{"a": 1}, {"a": "ü"}])
    assert path.read_text() == '{"steps": 4}\n{"a": 1}\n{"a": "\\u00fc"}\n'
    path.write_text(path.read_text() + '{"a": 3')
    again = store(path, head={"steps": 4})
    assert again.rows == [{"a": 1}, {"a": "ü"}]
    again.append([{"a": 4}])
    assert read_lines(path) == [{"steps": 4}, {"a": 1}, {"a": "ü"}, {"a": 4}]
    again.replace([{"a": 5}])
    again.append([{"a": 6}])
    assert read_lines(path) == [{"steps": 4}, {"a": 5}, {"a": 6}]


def test_rows_of_another_head_are_refused_by_the_first_setting_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    store(path, head={"steps": 4, "seed": 0}).replace([])
    store(path, head={"steps": 5, "seed": 0}).append([{"a": 1}])  # no row was there
    with pytest.raises(UserError, match=r"rows\.jsonl holds rows with steps 5, now it is 6: take another file"):
        store(path, head={"steps": 6, "seed": 1})
    assert read_lines(path) == [{"steps": 5, "seed": 0}, {"a": 1}]


def test_a_setting_may_gain_entries_where_it_is_allowed_to(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    store(path, head={"judges": {"a": 1}}, gains="judges").append([{"x": 1}])
    store(path, head={"judges": {"b": 2}}, gains="judges").append([{"x": 2}])
    assert read_lines(path) == [{"judges": {"a": 1, "b": 2}}, {"x": 1}, {"x": 2}]
    with pytest.raises(UserError, match="holds rows with judges"):
        store(path, head={"judges": {"a": 3}}, gains="judges")


@pytest.mark.parametrize("content", ["[3]\n", "no\n", '{"head": 1}\n5\n'])
def test_a_file_of_something_else_is_one_line_with_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        store(path, head={"head": 1})


def test_numbers_that_are_none_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store(tmp_path / "a").append([{"x": float("nan")}])
    store(tmp_path / "b", allow_nan=True).append([{"x": float("nan")}])
    assert json.loads((tmp_path / "b").read_text())["x"] != 0


def test_first_difference_names_both_values_but_no_long_list() -> None:
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 2}) is None
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == "b 2, now it is 3"
    assert first_difference({"a": 1}, {"a": 1, "c": "x"}) == "c None, now it is 'x'"
    assert first_difference({"items": ["k"] * 99}, {"items": []}) == "other items"


def test_a_file_is_locked_until_its_block_ends_and_names_the_process(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lock"
    for _ in range(2):
        with locked(path):
            owner = f"process {os.getpid()} on {platform.node()}"
            with ThreadPoolExecutor(1) as thread:
                error = thread.submit(locked(path).__enter__).exception()
            assert isinstance(error, UserError)
            assert re.search(f"run is in use by {owner}; wait until it ends", str(error))
            assert path.read_text() == owner


def test_a_block_inside_a_block_of_the_same_file_holds_it_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with locked(tmp_path / ".lock"):
        with locked(Path(".lock")):
            pass
        with pytest.raises(BlockingIOError), (tmp_path / ".lock").open() as file:  # the inner one's end frees nothing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with held_by_another(tmp_path / ".lock"), pytest.raises(UserError, match="in use"), locked(tmp_path / ".lock"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    program = f"""if True:
        import pathlib, time
        from editr1.files import locked
        with locked(pathlib.Path({str(path)!r})):
            print(flush=True)
            time.sleep(600)"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(UserError, match=f"in use by process {process.pid} on"), locked(path):
        pass
    process.kill()
    process.communicate(timeout=60)
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on")


def test_a_file_system_without_locks_is_told_and_any_other_fault_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    fail(errno.ENOSYS)
    with locked(tmp_path / ".lock"):
        assert "has no locks; let no second run write there" in caplog.text
    fail(errno.EIO)
    with pytest.raises(UserError, match=r"cannot write .*\.lock: .*Input/output error"), locked(tmp_path / ".lock"):
        pass
