"""`editr1 train` on a data.jsonl that is too long to be checked before the first step."""

from __future__ import annotations

import json
import time
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1.cli import check as checks
from editr1.cli import main as cli
from editr1.data.long import sample_of
from editr1.data.samples import GroupSampler
from editr1.training import checkpoint, datasets
from editr1.training.data_record import read_record
from editr1.training.run_files import CHECKPOINTS, DATA
from editr1.training.trainer import Trainer
from tests.training.runs import assert_same_run

LINES, MOST, STEPS = 40, 4, 3
SIZES = ["rollout.groups_per_step=2", "rollout.group_size=2", "rollout.steps=2", "trackers=[]", "save_every=100"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty items, of which four are checked before the first step."""
    for module in (datasets, checks):
        monkeypatch.setattr(module, "CHECKED", MOST)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (90 * number, 0, 50)).save(tmp_path / "data" / f"{number}.png")
    write(tmp_path, {})
    return tmp_path


def write(folder: Path, lines: dict[int, str]) -> None:
    items = {n: json.dumps({"source": f"{n % 3}.png", "instruction": f"make {n} red"}) for n in range(1, LINES + 1)}
    (folder / "data" / "data.jsonl").write_text("\n".join({**items, **lines}.values()) + "\n")


def train(folder: Path, *more: str) -> tuple[int, str]:
    """Exit code of the command, and what it tells on the error stream."""
    data = ["data.kind=jsonl", f"data.path={folder / 'data'}", f"out={folder / 'out'}", f"steps={STEPS}"]
    result = CliRunner().invoke(cli.app, ["train", "toy", *SIZES, *data, *more])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stderr


def drawn() -> list[list[int]]:
    """Line numbers that each step draws."""
    sampler = GroupSampler(LINES, 2, seed=0)
    return [[index + 1 for index in sampler.draw(2 * step)[0]] for step in range(STEPS)]


def first_drawn(step: int) -> int:
    """A line that is drawn in this step, and not checked before training."""
    return next(number for number in drawn()[step - 1] if number - 1 not in sample_of(LINES, MOST))


def test_a_bad_line_ends_the_run_with_its_steps_saved_and_the_mended_run_goes_on(folder: Path) -> None:
    number = first_drawn(3)
    write(folder, {number: '{"source": "1.png", "instruction": '})
    code, said = train(folder)
    faults = [line for line in said.splitlines() if line.startswith("editr1: ") and "warning" not in line]
    file = folder / "data" / "data.jsonl"
    assert code == 2
    assert faults[0] == f"editr1: {file}: checked {MOST} of {LINES} lines, the others beside the training"
    assert faults[1].startswith(f"editr1: {file}:{number}: not JSON") and len(faults) == 2
    out = folder / "out"
    assert [path.name for path in checkpoint.complete(out / CHECKPOINTS)] == ["step_000002"]
    write(folder, {})
    code, said = train(folder)
    assert code == 2
    assert (
        f"{file} is not what it was when the run began (its bytes are others, {LINES} items then, {LINES} now)" in said
    )
    code, said = train(folder, "data.changed=true")
    assert code == 0, said
    assert checkpoint.latest(out / CHECKPOINTS) == out / CHECKPOINTS / f"step_{STEPS:06d}"
    assert train(folder)[0] == 0  # what is there now counts


def test_a_run_is_the_one_on_a_file_that_is_checked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(folder)[0] == 0
    for module in (datasets, checks):
        monkeypatch.setattr(module, "CHECKED", LINES)
    assert train(folder, f"out={folder / 'whole'}")[0] == 0
    assert_same_run(folder / "out", folder / "whole")


def test_bad_lines_that_are_checked_first_are_all_told_before_a_step(folder: Path) -> None:
    numbers = [place + 1 for place in sample_of(LINES, MOST)][:2]
    write(folder, dict.fromkeys(numbers, "no JSON"))
    code, said = train(folder)
    assert code == 2 and not (folder / "out" / "metrics.jsonl").exists()
    assert [f"data.jsonl:{number}: not JSON" in said for number in numbers] == [True, True]


def test_the_other_lines_are_looked_at_beside_the_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults are warnings, the first twenty in words; a run that does not draw the lines ends well."""
    seen = {*chain(*drawn()), *(place + 1 for place in sample_of(LINES, MOST))}
    never = [number for number in range(1, LINES + 1) if number not in seen]
    write(folder, dict.fromkeys(never, "no JSON"))
    monkeypatch.setattr(checks, "LINES", 3)
    look, done = checks.look_at_lines, []

    def finish(dataset: object, stop: object) -> None:
        look(dataset, type("Never", (), {"wait": lambda self, seconds: False})())  # type: ignore[arg-type]
        done.append(time.monotonic())

    monkeypatch.setattr(checks, "look_at_lines", finish)
    code, said = train(folder)
    assert code == 0 and len(done) == 1
    warned = [line for line in said.splitlines() if "warning" in line and "data.jsonl" in line]
    assert [f":{number}: not JSON" in line for number, line in zip(never[:3], warned[:3], strict=True)] == [True] * 3
    assert f"and {len(never) - 3} more faults; see editr1 data check" in warned[3] and len(warned) == 4


def test_a_file_that_is_changed_during_the_run_ends_it_with_its_steps_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step

    def change(self: Trainer, *arguments: object) -> object:
        row = step(self, *arguments)  # type: ignore[arg-type]
        if self.step == 2:
            write(folder, {1: '{"source": "1.png", "instruction": "make it another length"}'})
        return row

    monkeypatch.setattr(Trainer, "train_step", change)
    code, said = train(folder)
    assert code == 2 and "data.jsonl has changed since this run read it" in said
    assert [path.name for path in checkpoint.complete(folder / "out" / CHECKPOINTS)] == ["step_000002"]


def test_lines_that_are_added_during_a_run_do_not_disturb_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.train_step

    def add(self: Trainer, *arguments: object) -> object:
        with (folder / "data" / "data.jsonl").open("a") as file:
            file.write("{}\n")
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "train_step", add)
    assert train(folder)[0] == 0
    code, said = train(folder, f"steps={STEPS + 1}")
    assert code == 2 and f"its bytes are others, {LINES} items then, {LINES + STEPS} now" in said


def test_a_part_of_a_long_file_is_held_out(folder: Path) -> None:
    code, said = train(folder, "evaluation={split: 1, items: 2, edits: 1, steps: 2}", "steps=1")
    assert code == 0, said
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results["items"] == 2
    record = read_record(folder / "out" / DATA)
    assert (len(record.sample), record.items) == (MOST, LINES) and record.sha256 is not None


def test_a_damaged_record_of_a_long_file_is_one_line(folder: Path) -> None:
    assert train(folder, "steps=1")[0] == 0
    for text in ('{"sha256": "00", "items": 3', '{"sha256": 3, "sample": []}', '{"items": 3}', "{}"):
        (folder / "out" / DATA).write_text(text)
        code, said = train(folder, "steps=2")
        assert code == 2 and "data.json cannot be read" in said and "data.changed=true" in said
