"""`torchrun -m editr1 eval` of GEdit and own data; a lost rank, Ctrl-C, a wrong setting."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editr1.files import read_lines
from editr1.toy.world import ToyDataset
from tests.cli.test_evaluate import held, invoke, pictures
from tests.evaluation.benchmarks.folders import gedit_folder
from tests.ranks import SECONDS, RanksHang, children, launcher, once_more, stacks, started, torchrun

ITEMS = 18  # three batches of the judge: two turns of two ranks
TOY = ("--editor", "toy", "--judge", "toy", "--steps", "2")


def toy_data(folder: Path, items: int) -> Path:
    """Items of the toy world as a user's own data."""
    folder.mkdir()
    samples = [ToyDataset("heldout", items)[index] for index in range(items)]
    lines = []
    for number, sample in enumerate(samples):
        sample.source.save(folder / f"{number}.png")
        words = {"instruction": sample.instruction, "requirement": sample.requirement, "task": sample.task}
        lines.append({"source": f"{number}.png", "key": f"k{number}", **words})
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_data(tmp_path_factory.mktemp("own") / "data", ITEMS)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best of two edits of own data, by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    code, _, error = invoke("data", data, *TOY, "--best-of", "2", "--out", out)
    assert code == 0, error
    return out


def results(out: Path) -> Any:
    return json.loads((out / "results.json").read_text())


def process_of(rank: int, torchrun_id: int) -> int:
    """The process of a rank, by the environment that torchrun gives it."""
    return next(
        child for child in children(torchrun_id) if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text()
    )


def stopped_in_the_second_turn(arguments: list[str], out: Path, stop: Callable[[int], None]) -> tuple[int, str]:
    """Exit code and errors of an evaluation on two ranks; `stop` gets torchrun's process after the first turn."""
    rows = out / "edits" / "rows.jsonl"
    shutil.rmtree(out, ignore_errors=True)
    with (
        held(out / "edits" / "k16_source.png"),  # the first rank waits there in its second turn
        started(
            [*launcher(2), "-m", "editr1", *arguments],
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        ) as process,
    ):
        end = time.monotonic() + SECONDS
        while process.poll() is None and not (rows.exists() and rows.read_text().count("\n") > 1):
            if time.monotonic() > end:
                raise RanksHang(stacks(process))
            time.sleep(0.05)
        stop(process.pid)
        _, error = process.communicate(timeout=SECONDS)
        return process.returncode, error


@pytest.mark.parametrize("cause", ["lost rank", pytest.param("Ctrl-C", marks=pytest.mark.slow)])
def test_own_data_on_two_ranks_goes_on_by_one_process_and_ends_the_same(
    cause: str, data: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["eval", "data", str(data), *TOY, "--best-of", "2", "--out", str(out)]
    stops: dict[str, Callable[[int], None]] = {
        "lost rank": lambda process: os.kill(process_of(1, process), signal.SIGKILL),
        "Ctrl-C": lambda process: os.kill(process, signal.SIGINT),
    }
    code, error = once_more(lambda: stopped_in_the_second_turn(arguments, out, stops[cause]))
    assert code != 0 and not (out / "results.json").exists()
    assert "Signal 9 (SIGKILL)" in error if cause == "lost rank" else error.count("The same command goes on.") == 1
    assert len(read_lines(out / "edits" / "rows.jsonl")) == 1 + 2 * 16  # the settings, and the first turn of both
    code, _, error = invoke(*arguments[1:])
    assert code == 0, error
    assert results(out) == results(alone) and pictures(out) == pictures(alone)
    assert read_lines(out / "edits" / "rows.jsonl") == read_lines(alone / "edits" / "rows.jsonl")


def test_edits_of_other_settings_are_refused_in_one_line_by_the_main_rank(data: Path, alone: Path) -> None:
    asked = ("data", str(data), *TOY, "--best-of", "2", "--seed", "1", "--out", str(alone))
    result = torchrun(2, "editr1", "eval", *asked)
    faults = re.findall(r"^editr1: .*$", result.stderr, re.MULTILINE)
    assert result.returncode != 0 and len(faults) == 1
    assert faults[0].startswith("editr1: rank 0: ") and "holds edits made with seed 0, now it is 1" in faults[0]


def test_two_ranks_run_gedit_to_the_files_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    asked = ("gedit", "--data", gedit_folder(tmp_path / "data", items=3), *TOY)
    code, _, error = invoke(*asked, "--out", tmp_path / "1" / "mine")
    assert code == 0, error
    result = torchrun(2, "editr1", "eval", *map(str, asked), "--out", str(tmp_path / "2" / "mine"))
    assert result.returncode == 0, result.stderr[-3000:]
    one, two = (tmp_path / ranks / "mine" for ranks in "12")
    assert results(one) == results(two) and pictures(one) == pictures(two)
    tables = sorted(path.relative_to(one) for path in one.rglob("*.csv"))
    assert tables and all((one / path).read_bytes() == (two / path).read_bytes() for path in tables)
