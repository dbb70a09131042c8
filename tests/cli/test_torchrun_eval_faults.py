"""`torchrun -m editr1 eval` of GEdit and own data; a lost rank, Ctrl-C, a wrong setting."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from editr1.files import read_lines
from editr1.toy.world import ToyDataset
from tests.cli.test_evaluate import held, invoke, pictures
from tests.evaluation.benchmarks.folders import gedit_folder
from tests.ranks import launcher, run_ranks, torchrun
from tests.training.kills import started

ITEMS = 18  # three batches of the judge: two turns of two ranks
LOST_RANK = str(Path(__file__).with_name("lost_rank.py"))
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


def goes_on_alone(arguments: list[str], out: Path, alone: Path) -> None:
    """One process ends what two ranks have begun, as one that has made all of it."""
    assert not (out / "results.json").exists()
    assert len(read_lines(out / "edits" / "rows.jsonl")) == 1 + 2 * 16  # the settings, and the first turn of both
    code, _, error = invoke(*arguments)
    assert code == 0, error
    assert results(out) == results(alone) and pictures(out) == pictures(alone)
    assert read_lines(out / "edits" / "rows.jsonl") == read_lines(alone / "edits" / "rows.jsonl")


def test_own_data_on_two_ranks_of_which_one_is_lost_goes_on_by_one_process_and_ends_the_same(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["data", str(data), *TOY, "--best-of", "2", "--out", str(out)]
    done = run_ranks([*launcher(2), LOST_RANK, "eval", *arguments])
    assert done.returncode != 0 and "Signal 9 (SIGKILL)" in done.stderr, done.stderr
    goes_on_alone(arguments, out, alone)


@pytest.mark.slow
def test_own_data_on_two_ranks_goes_on_by_one_process_after_ctrl_c_and_ends_the_same(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["data", str(data), *TOY, "--best-of", "2", "--out", str(out)]
    rows = out / "edits" / "rows.jsonl"
    words = ["env", "--default-signal=INT", *launcher(2)]  # a shell's background jobs ignore it
    with (
        held(rows.with_name("k16_source.png")),  # the first rank waits there in its second turn
        started([*words, "-m", "editr1", "eval", *arguments]) as launch,
    ):
        assert launch.wait(lambda: rows.exists() and rows.read_text().count("\n") > 1), launch.end()
        launch.process.send_signal(signal.SIGINT)
        said = launch.end()
    assert launch.process.returncode != 0 and said.count("The same command goes on.") == 1
    goes_on_alone(arguments, out, alone)


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
