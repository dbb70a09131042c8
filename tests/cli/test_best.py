"""A run keeps and names its best checkpoint: whatever `keep` says, whenever it is killed, the same after it goes on."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from editr1 import files
from editr1.cli import main as cli
from editr1.cli import measured
from editr1.cli.measured import HeldOut, train_measured
from editr1.editors.open import open_editor
from editr1.errors import UserError
from editr1.evaluation.heldout.rows import read_rows
from editr1.export.export import find_source
from editr1.judges.base import JudgeRequest, Score
from editr1.report.run import write_report
from editr1.report.watch.following import Followed
from editr1.report.watch.view import card
from editr1.training import checkpoint
from editr1.training.best import read_best
from editr1.training.datasets import open_datasets
from editr1.training.trainer import Trainer
from tests.training.runs import assert_same_run, redness, settings

STEPS, BEST = 5, "step_000002"
EVALUATION = {"split": 6, "every": 2, "edits": 1, "steps": 2}
BONUS = {2: 0.4, 4: 0.2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for i in range(10):
        Image.new("RGB", (32, 32), (20 * i, 10, 90)).save(folder / f"{i}.png")
    lines = [{"source": f"{i}.png", "instruction": "make it red", "key": f"k{i}"} for i in range(10)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


class PeakedJudge:
    """Likes red, and the weights of step 2 above all; gives no reward from step `dead` on."""

    remote = False

    def __init__(self, dead: int = STEPS + 1) -> None:
        self.dead = dead
        self.trainer: Trainer | None = None

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        step = 0 if self.trainer is None else self.trainer.step
        if step >= self.dead:
            return [Score(None, "no answer") for _ in requests]
        return [Score(0.5 * redness(request) + BONUS.get(step, 0.0)) for request in requests]


class Run:
    """A run on the tiny editor that keeps one checkpoint."""

    def __init__(self, editor: Path, data: Path, out: Path, dead: int = STEPS + 1, **changes: Any) -> None:
        own = {"data__path": data, "steps": STEPS, "save_every": 1, "keep": 1, "evaluation": EVALUATION}
        self.config, judge = settings(**{**own, **changes}), PeakedJudge(dead)
        training, heldout = open_datasets(self.config)
        assert heldout is not None and self.config.evaluation is not None
        self.trainer = Trainer(self.config, open_editor(editor, pixels=1024), judge, training, out)
        judge.trainer = self.trainer
        self.heldout = HeldOut(heldout, self.config.evaluation)

    def go(self) -> str:
        console = Console(file=io.StringIO(), width=300)
        train_measured(self.trainer, self.heldout, console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


Start = Callable[..., Run]


@pytest.fixture
def start(tiny_editor_path: Path, data: Path, tmp_path: Path) -> Start:
    return lambda **changes: Run(tiny_editor_path, data, **{"out": tmp_path / "out", **changes})


@pytest.fixture(scope="module")
def whole(tiny_editor_path: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run that was never stopped, and what it said."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, Run(tiny_editor_path, data, out).go()


def kept(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_the_best_is_kept_beside_the_newest_and_its_figures_are_those_of_the_rows(whole: tuple[Path, str]) -> None:
    out, said = whole
    assert kept(out) == ["best.json", BEST, "step_000005"]
    before, best, last = (
        np.array([row.judge for row in read_rows(out / "evaluation" / name)]) for name in ("before", BEST, "after")
    )
    named = json.loads((out / "checkpoints/best.json").read_text())
    assert (named["step"], named["items"], named["last"]["step"]) == (2, 6, 5)
    assert named["reward"] == pytest.approx(best.mean(), abs=1e-12)
    assert named["gain"] == pytest.approx((best - before).mean(), abs=1e-12)
    assert named["last"]["behind"] == pytest.approx((best - last).mean(), abs=1e-12) and named["last"]["behind"] > 0.3
    assert said.count("Best checkpoint: step 2") == 3
    assert "surely worse." in said and "(+0.4" in said


def test_best_weights_are_chosen_by_name_and_the_last_ones_by_default(whole: tuple[Path, str]) -> None:
    out, _ = whole
    named = out.with_name("out@best")
    assert checkpoint.trained_weights(named) == out / "checkpoints" / BEST / "ema"
    assert checkpoint.trained_weights(out) == out / "checkpoints" / "step_000005" / "ema"
    assert (find_source(named).step, find_source(out).step) == (2, 5)
    assert find_source(named, ema=False).weights == out / "checkpoints" / BEST / "policy"
    with pytest.raises(UserError, match="@best and --step 5 name two checkpoints"):
        find_source(named, step=5)


def test_a_folder_whose_name_ends_so_is_only_itself(tmp_path: Path) -> None:
    (tmp_path / "out@best").mkdir()
    assert checkpoint.trained_weights(tmp_path / "out@best") == tmp_path / "out@best"


def test_the_folder_of_the_run_may_be_this_one(whole: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole[0])
    for name in ("@best", ".@best", "./@best"):
        assert checkpoint.trained_weights(Path(name)).resolve() == whole[0].resolve() / "checkpoints" / BEST / "ema"


def test_report_watch_and_doctor_say_that_the_last_is_not_the_best(whole: tuple[Path, str]) -> None:
    out, _ = whole
    words = "step 2, held-out reward"
    assert words in write_report(out).read_text() and words in card(Followed(out))["facts"]["Best checkpoint"]
    result = CliRunner().invoke(cli.app, ["doctor", str(out), "--json"])
    found = {each["name"]: each for each in json.loads(result.stdout)["findings"]}["past the best checkpoint"]
    assert found["wrong"] and words in found["text"] and "surely worse" in found["text"] and "RUN@best" in found["text"]


KILLS = {
    "before the name is written": (measured, "write_best", 0, True),
    "before it is written again": (measured, "write_best", 1, True),
    "after it is written": (measured, "write_best", 0, False),
    "within its writing": (files, "sync", None, True),
    "before an old checkpoint is removed": (checkpoint, "_stale", 3, True),
    "after it was found which may go": (checkpoint, "_stale", 4, False),
    "in the results": (measured, "write_results", 2, True),
}
FIRST = ("before it is written again", "within its writing", "after it was found which may go")


def killed(run: Run, patch: pytest.MonkeyPatch, module: Any, name: str, call: int | None, before: bool) -> None:
    """Go, and be killed at a call of a function: the one of this number, or the first one for best.json."""
    act, calls = getattr(module, name), [0]

    def die(*arguments: Any, **options: Any) -> Any:
        mine = "best.json" in str(arguments[0]) if call is None else calls[0] == call
        calls[0] += 1
        result = None if mine and before else act(*arguments, **options)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    patch.setattr(module, name, die)
    child = os.fork()
    if child == 0:
        try:
            run.go()
        finally:
            os._exit(1)
    patch.undo()
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.long
@pytest.mark.parametrize(
    "moment", [*FIRST, *(pytest.param(each, marks=pytest.mark.slow) for each in KILLS if each not in FIRST)]
)
def test_killed_at_any_moment_a_whole_checkpoint_is_named_and_the_run_ends_the_same(
    whole: tuple[Path, str], start: Start, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    killed(run, monkeypatch, *KILLS[moment])
    root = run.trainer.out / "checkpoints"
    best = read_best(root)
    assert best is None or checkpoint.place(root, best.step) in checkpoint.complete(root)
    start().go()
    assert_same_run(whole[0], run.trainer.out)
    assert (root / "best.json").read_text() == (whole[0] / "checkpoints/best.json").read_text()
    assert {*kept(run.trainer.out)} >= {*kept(whole[0])}  # what could not be removed any more is so with the next one


def test_an_evaluation_without_rewards_changes_nothing_and_says_so(whole: tuple[Path, str], start: Start) -> None:
    run = start(dead=4)  # the judge of training dies with it, which is told later
    with pytest.raises(UserError, match=r"gave none of the 6 edits .*step_000004 a reward: no answer; mend the judge"):
        run.go()
    best = read_best(run.trainer.out / "checkpoints")
    assert best is not None and (best.step, best.last.step) == (2, 2)
    start().go()
    assert read_best(run.trainer.out / "checkpoints") == read_best(whole[0] / "checkpoints")


def test_a_damaged_name_costs_no_checkpoint_and_the_next_evaluation_mends_it(
    whole: tuple[Path, str], start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    start(steps=4).go()
    run = start()
    file = run.trainer.out / "checkpoints" / "best.json"
    file.write_text('{"step": 2')
    run.trainer.train(until=5)  # without the evaluation
    assert "best.json: not JSON" in capsys.readouterr().err
    assert kept(run.trainer.out) == ["best.json", BEST, "step_000004", "step_000005"]
    said = start().go()
    assert "best.json: not JSON" in capsys.readouterr().err and said.count("Best checkpoint: step 2") == 2
    assert file.read_text() == (whole[0] / "checkpoints/best.json").read_text()


def test_a_run_of_an_older_version_goes_on_and_names_the_best_of_those_that_are_there(start: Start) -> None:
    start(steps=4, keep=3).go()
    run = start(keep=3)
    (run.trainer.out / "checkpoints" / "best.json").unlink()
    assert "Best checkpoint" not in write_report(run.trainer.out).read_text()
    with pytest.raises(UserError, match=r"names no best checkpoint, .*leave out @best for the last one"):
        checkpoint.trained_weights(run.trainer.out.with_name("out@best"))
    said = run.go()
    assert said.count("Best checkpoint: step 2") == 3 and BEST in kept(run.trainer.out)


def test_of_an_older_run_that_has_removed_its_best_the_best_of_the_others_is_named(start: Start) -> None:
    start(steps=4).go()
    run = start()
    (run.trainer.out / "checkpoints" / "best.json").unlink()
    checkpoint._discard(run.trainer.out / "checkpoints" / BEST)
    assert "Best checkpoint: step 4" in run.go()
    assert kept(run.trainer.out) == ["best.json", "step_000004", "step_000005"]


def test_a_best_checkpoint_that_is_damaged_is_refused_by_name_and_another_is_named_by_the_next_session(
    start: Start,
) -> None:
    start(steps=4).go()
    root = start(steps=4).trainer.out / "checkpoints"
    weights = next((root / BEST / "ema").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"step_000002.*put a copy of the checkpoint there"):
        checkpoint.trained_weights(root.parent.with_name("out@best"))
    assert "Best checkpoint: step 4" in start().go()
