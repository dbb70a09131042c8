"""TensorBoard, W&B and trackio: what they have of a run, and that none of them ends or slows it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.errors import UserError
from editr1.files import read_lines
from editr1.training import preflight, trackers
from editr1.training.log import RunLog
from editr1.training.preflight import check_trackers
from editr1.training.trackers import Apart, close_all, flat, open_trackers, read_mark
from tests.cli.test_torchrun import SIZES
from tests.training.runs import Make
from tests.training.tracked import wandb_files, wandb_rows

RED = Image.new("RGB", (8, 6), (200, 10, 20))
TIMED = ("seconds", "images_per_s", "judge_latency")


def settings(*overrides: str) -> Config:
    return load_config("toy", overrides)


def test_tensorboard_shows_every_number_under_its_name_and_the_pictures(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.trackers += open_trackers(settings(), tmp_path, [], 0)
    log.write({"step": 1, "loss": None, "reward_mean": 0.25, "reward_by_task": {"add": 0.5, "style": None}})
    log.write({"step": 2, "loss": 1.5, "reward_mean": 0.75, "reward_by_task": {"add": 0.25}, "reasons": ["x"]})
    log.trackers[0].picture(2, RED)
    log.close()
    board = EventAccumulator(str(tmp_path / "tb")).Reload()
    shown = {tag: [(event.step, event.value) for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert shown == {
        "reward_mean": [(1, 0.25), (2, 0.75)],
        "reward_by_task/add": [(1, 0.5), (2, 0.25)],
        "loss": [(2, 1.5)],
    }
    (picture,) = board.Images("samples")
    assert (picture.step, picture.width, picture.height) == (2, 8, 6)


def test_without_tensorboard_a_run_has_its_rows_and_says_once_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    log = RunLog(tmp_path, 0)
    log.trackers += open_trackers(settings(), tmp_path, [], 0)
    for step in (1, 2):
        log.write({"step": step})
    log.close()
    said = f"{tmp_path / 'tb'} is not written; for TensorBoard's curves, pip install 'editr1[tensorboard]'"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 2 and not (tmp_path / "tb").exists()


def test_a_tracker_that_is_asked_for_and_not_installed_is_refused_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    check_trackers(["tensorboard"])
    with pytest.raises(UserError, match=r"wandb is not installed: pip install 'editr1\[wandb\]'"):
        check_trackers(["tensorboard", "wandb"])


@pytest.mark.parametrize("call", ["open", "numbers", "picture", "close"])
def test_a_tracker_that_fails_warns_once_and_the_log_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    class Broken:
        def __init__(self) -> None:
            self.fail("open")

        def fail(self, name: str) -> None:
            if name == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def numbers(self, step: int, values: Any) -> None:
            self.fail("numbers")

        def picture(self, step: int, image: Any) -> None:
            self.fail("picture")

        def close(self) -> None:
            self.fail("close")

    log = RunLog(tmp_path, 0)
    log.trackers.append(Apart("board", Broken))
    for step in (1, 2, 3):
        log.write({"step": step})
        log.trackers[0].picture(step, RED)
    log.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("board gets no more of this run") and "No space left on device" in line
    assert [row["step"] for row in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_a_tracker_that_hangs_is_waited_for_neither_in_steps_nor_for_long_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "BEHIND", 5)
    monkeypatch.setattr(trackers, "CLOSING", 0.2)
    free = threading.Event()

    def hang() -> Any:
        free.wait(600)
        raise OSError("late")

    start, hanging = time.monotonic(), [Apart("one", hang), Apart("two", hang)]
    for step in range(1, 9):
        hanging[0].row({"step": step})
    close_all(hanging)
    assert time.monotonic() - start < 300
    free.set()
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" (")[0] for line in lines] == [f"{name} gets no more of this run" for name in ("one", "two")]
    assert "5 rows behind" in lines[0] and "did not end in time" in lines[1]


def test_a_run_that_begins_anew_has_a_new_id_and_one_that_goes_on_keeps_its_own(tmp_path: Path) -> None:
    file = tmp_path / "wandb.json"
    file.write_text(json.dumps({"id": "abc", "numbers": 7, "picture": 5}))
    assert read_mark(file, 5) == trackers.Mark("abc", 7, 5)
    anew = read_mark(file, 0)
    assert anew.id != "abc" and (anew.numbers, anew.picture) == (0, 0)


def test_secrets_in_addresses_are_no_part_of_what_trackers_get() -> None:
    text = '"http://me:pass@host:1/v1?api_key=abc&n=1", "https://host?token=t0k", "a//b", "x@y.z"'
    expected = '"http://***@host:1/v1?api_key=***&n=1", "https://host?token=***", "a//b", "x@y.z"'
    assert trackers.SECRET.sub("***", text) == expected


def without_times(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in flat(row) if not name.startswith(TIMED)}


@pytest.mark.long
def test_wandb_has_each_step_of_a_run_once_offline_although_steps_were_made_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODE", "PROJECT", "NAME", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-forty-letters-0123456789abcdef")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens
    first = make(trackers=["wandb"])
    first.train(until=3)
    shutil.rmtree(first.out / "checkpoints/step_000003")  # as if it was killed: step 3 is made again
    make(trackers=["wandb"]).train()
    rows, seen = read_lines(first.out / "metrics.jsonl"), wandb_rows(first.out)
    end = time.monotonic() + 60
    while len(seen) < len(rows) and time.monotonic() < end:  # its own process may still write the last one
        time.sleep(0.5)
        seen = wandb_rows(first.out)
    assert len({run for run, _ in seen}) == 1 and len([*first.out.glob("wandb/offline-run-*")]) == 2
    steps = [row for _, row in seen]
    assert [row["_step"] for row in steps] == [1, 2, 3, 4] == [row["step"] for row in rows]
    for row, told in zip(rows, steps, strict=True):
        expected = without_times(row)
        assert {name: told[name] for name in expected} == pytest.approx(expected)
    assert ["samples/path" in row for row in steps] == [True, True, False, True]
    kept = first.out / "samples/step_000004.png"
    (drawn,) = [path for path in wandb_files(first.out) if path.name.startswith("samples_4_")]
    assert np.array_equal(np.asarray(Image.open(drawn)), np.asarray(Image.open(kept)))
    written = b"".join(path.read_bytes() for path in wandb_files(first.out))
    assert b"group_size" in written and b"secret-of-forty" not in written
    assert not (first.out / "tb").exists()


READ = """
import json
from trackio.sqlite_storage import SQLiteStorage as Storage
print(json.dumps({run: Storage.get_logs("editr1", run) for run in Storage.get_runs("editr1")}))
"""


@pytest.mark.long
@pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed (editr1[trackio])")
def test_trackio_has_each_step_of_a_run_once_in_its_database_and_starts_no_server(tmp_path: Path) -> None:
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "db"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600, "cwd": tmp_path}
        done = subprocess.run(command, env=environment, check=False, **options)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    for steps in (2, 3):
        train = ("-m", "editr1", "train", "toy", *SIZES, "out=out", "trackers=[trackio]", "save_every=2")
        said = run(*train, f"steps={steps}")
        assert said == f"out/checkpoints/step_{steps:06d}\n"
    ((name, logs),) = json.loads(run("-c", READ)).items()
    assert name.startswith("out-")
    rows = read_lines(tmp_path / "out/metrics.jsonl")
    told = [row for row in logs if "reward_mean" in row]
    assert [row["step"] for row in told] == [1, 2, 3]
    for row, other in zip(rows, told, strict=True):
        expected = without_times(row)
        assert {name: other[name] for name in expected} == pytest.approx(expected)
    assert [row["step"] for row in logs if "samples" in row] == [1, 2]
