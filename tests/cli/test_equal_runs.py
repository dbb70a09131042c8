"""Equal runs write equal bytes: in two processes, whose hashes of words differ, all files but times are the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.test_torchrun import SIZES

TIMES = re.compile(r'"(seconds|judge_latency|train_seconds|images_per_s|seal)": (\{[^}]*\}|"[^"]*"|[^,}\n]*)')
"""In metrics.jsonl, state.json (its seal is a hash of all its other entries) and results.json."""
OF_A_PROCESS = ("session.json", "report.html", ".lock")
"""Peak of memory; the time when it was made, and times of steps; number of the process."""
RUN = ("train", "toy", *SIZES, "steps=2", "save_every=1", "evaluation={split: 2, edits: 1, steps: 2}", "out=out")
EXPORTS = ((), ("--format", "peft"), ("--no-ema", "--step", "1"), ("--merge",))


PROGRAM = """
import json, sys
from editr1.cli.main import app
for words in json.loads(sys.argv[1]):
    app(words, standalone_mode=False)
"""


def start(folder: Path, seed: int) -> subprocess.Popen[str]:
    """A run and its exports, by a process whose hashes of words follow from a seed."""
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    exports = [("export", "out", "--to", f"export{number}", *more) for number, more in enumerate(EXPORTS)]
    program = [sys.executable, "-c", PROGRAM, json.dumps([RUN, *exports])]
    return subprocess.Popen(program, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def scalars(file: Path) -> list[Any]:
    """What TensorBoard shows, without times."""
    events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if not re.match("seconds|images_per_s|judge_latency", name)]
    return [(name, event.step, event.value) for name in names for event in events.Scalars(name)]


def content(file: Path) -> Any:
    if file.name in ("metrics.jsonl", "state.json", "results.json"):
        text, times = TIMES.subn("", file.read_text(encoding="utf-8"))
        assert times
        return text
    return scalars(file) if "tfevents" in file.name else file.read_bytes()


def files_of(folder: Path) -> dict[str, Any]:
    """The content of every file by its path, without times; names of TensorBoard's files hold one too."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in OF_A_PROCESS]
    return {re.sub(r"tfevents.*", "tfevents", str(path.relative_to(folder))): content(path) for path in files}


@pytest.mark.long
def test_two_processes_write_equal_bytes(tmp_path: Path) -> None:
    for process in [start(tmp_path / str(seed), seed) for seed in (1, 2)]:
        with process:
            said = process.communicate(timeout=600)[1]
        assert process.returncode == 0, said[-3000:]
    one, other = (files_of(tmp_path / str(seed)) for seed in (1, 2))
    assert one.keys() == other.keys() and len(one) > 30
    assert [name for name in one if one[name] != other[name]] == []
    state = json.loads((tmp_path / "1/out/checkpoints/step_000002/state.json").read_text())
    assert {*state["sha256"]} == {*state["files"]} and len(state["sha256"]) == 4
