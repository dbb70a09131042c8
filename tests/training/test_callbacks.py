"""Training from Python: callbacks, interrupts, and folders that others write into."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from editr1 import UserError, rollout
from editr1.editors.open import open_editor
from editr1.files import locked, read_lines
from editr1.training.log import RunLog
from editr1.training.step_row import StepRow
from editr1.training.trainer import Trainer
from tests.held import held_by_another
from tests.training.runs import Colours, Make, RedJudge, assert_same_run, at_call, settings


@pytest.fixture(scope="module")
def straight(tiny_editor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps without a callback or a stop."""
    out = tmp_path_factory.mktemp("straight")
    Trainer(settings(), open_editor(tiny_editor_path, pixels=1024), RedJudge(), Colours(), out).train()
    return out


def test_a_callback_receives_the_rows_of_the_log_and_may_make_edits(make: Make, straight: Path, tmp_path: Path) -> None:
    trainer, rows = make(), list[StepRow]()

    def look(row: StepRow) -> None:
        rows.append(row)
        assert read_lines(trainer.out / "metrics.jsonl")[-1]["step"] == row["step"] == trainer.step
        rollout(trainer.editor, trainer.dataset[0], steps=2)
        with trainer.ema.swap():
            rollout(trainer.editor, trainer.dataset[0], steps=2)

    trainer.train(on_step=look)
    assert rows == read_lines(trainer.out / "metrics.jsonl") and len(rows) == 4
    assert_same_run(tmp_path / "out", straight)


def test_an_exception_in_a_callback_loses_no_step_and_training_goes_on(
    make: Make, straight: Path, tmp_path: Path
) -> None:
    def fail(row: StepRow) -> None:
        if row["step"] == 3:
            raise ZeroDivisionError

    trainer = make()
    with pytest.raises(ZeroDivisionError):
        trainer.train(on_step=fail)
    assert (trainer.out / "checkpoints" / "step_000003").is_dir()
    trainer.train()
    assert_same_run(tmp_path / "out", straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step_or_a_callback_loses_no_step_and_training_goes_on(
    make: Make, straight: Path, tmp_path: Path, number: signal.Signals
) -> None:
    def kill(call: int, scores: list[object]) -> list[object]:
        if call == 3:
            os.kill(os.getpid(), number)
        return scores

    def stop(row: StepRow) -> None:
        os.kill(os.getpid(), number)

    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    trainer = make(judge=RedJudge(kill))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.step == 1 and (trainer.out / "checkpoints" / "step_000001").is_dir()
    with pytest.raises(KeyboardInterrupt):
        trainer.train(on_step=stop)
    assert trainer.step == 2 and (trainer.out / "checkpoints" / "step_000002").is_dir()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    trainer.train()
    assert_same_run(tmp_path / "out", straight)


def test_a_trainer_whose_step_broke_off_half_way_is_not_trained_on_and_a_new_one_is(
    make: Make, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    with monkeypatch.context() as patch:

        def full(log: RunLog, row: StepRow) -> None:
            raise UserError("no room")

        patch.setattr(RunLog, "write", full)
        with pytest.raises(UserError, match="no room"):
            trainer.train()
    with pytest.raises(UserError, match=r"step 1 of .*out broke off half-way; open the trainer again to go on"):
        trainer.train()
    make().train()
    assert_same_run(tmp_path / "out", straight)


def test_a_folder_into_which_another_process_writes_is_left_alone_and_trained_in_afterwards(
    make: Make, straight: Path, tmp_path: Path
) -> None:
    trainer = make()
    with held_by_another(tmp_path / "out" / ".lock"):
        with pytest.raises(UserError, match=rf"out is in use by process {os.getpid()} on .*; wait until it ends"):
            trainer.train()
        assert [path.name for path in trainer.out.iterdir()] == [".lock"]
    trainer.train(until=2)
    with locked(tmp_path / "out" / ".lock"):  # as a command does
        trainer.train()
    assert_same_run(tmp_path / "out", straight)


def test_a_trainer_that_was_opened_before_another_went_on_is_refused(
    make: Make, straight: Path, tmp_path: Path
) -> None:
    late, first = make(), make()
    first.train(until=3)
    with pytest.raises(UserError, match="out has gone on to step_000003 since this trainer was at step 0;"):
        late.train()
    first.train()
    assert_same_run(tmp_path / "out", straight)


def test_a_run_that_is_interrupted_in_its_first_step_begins_again(make: Make, straight: Path, tmp_path: Path) -> None:
    trainer = make(judge=RedJudge(at_call(1, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.step == 0 and not [*trainer.out.glob("checkpoints/step_*")]
    trainer.train()
    assert_same_run(tmp_path / "out", straight)
