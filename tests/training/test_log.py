"""What a run says while it goes on."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from editr1.judges.base import JudgeRequest, Score
from editr1.terminal import loudness
from editr1.training import rewarding
from editr1.training.alarms import Alarm
from editr1.training.log import QUIET, StepProgress, by_rank, imbalance, slowest
from editr1.training.rewarding import Rewarding
from editr1.training.session import header
from tests.training.runs import Make, RedJudge

ROW: dict[str, Any] = {"step": 3, "reward_mean": 0.5, "groups_kept": 2, "dropped": {}, "images_per_s": 1.0}


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_long_steps_say_now_and_then_what_they_do_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    with StepProgress(2, 9, edits=24, clock=clock) as progress:
        for made in (2, 4, 6):
            progress.collects(made, made - 2)
            clock.now += QUIET / 2
        assert said(capsys) == ["step 3/9: 6/24 edits made, 4 judged"]
        progress.collects(24, 10)
        said(capsys)
        clock.now += 45
        progress.waits(12)
        assert said(capsys) == ["step 3/9: waiting for the judge 45 s, 12/24 edits judged"]
        clock.now += QUIET
        progress.trains(1, 2)
        assert said(capsys) == ["step 3/9: 1/2 groups trained"]


def test_time_left_is_told_after_the_first_step_of_a_session_alone(capsys: pytest.CaptureFixture[str]) -> None:
    row = {**ROW, "seconds": {"rollout": 50.0, "judge": 10.0}}
    with StepProgress(2, 63) as progress:
        progress.show(row)
        assert said(capsys)[1:] == ["This step took 60 s; 60 more take about 1 h 0 min."]
        progress.show({**row, "step": 4})
        assert len(said(capsys)) == 1


def test_a_step_that_will_take_long_is_told_by_its_first_edits_and_a_short_one_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seconds, told in ((26.0, True), (24.0, False)):  # 288 / 12 times as long: 624 s and 576 s
        clock = Clock()
        with StepProgress(0, 9, edits=288, clock=clock) as progress:
            clock.now += 1000  # loading and what comes before is not counted
            progress.begin([])
            for made in (12, 24):
                clock.now += seconds
                progress.collects(made, made)
        lines = [line for line in said(capsys) if line.startswith("warning: ")]
        assert len(lines) == told
    clock = Clock()
    with StepProgress(0, 9, edits=12, clock=clock) as progress:
        clock.now += 700
        progress.collects(12, 0)  # the whole step: its time is told anyway
    assert not [line for line in said(capsys) if "warning" in line]


def test_the_warning_of_a_long_step_says_how_long_and_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with StepProgress(0, 9, edits=288, clock=clock) as progress:
        clock.now += 95
        progress.collects(12, 12)
    (line,) = [line for line in said(capsys) if line.startswith("warning: ")]
    assert "the first 12 edits took 1 min 35 s, so the 288 of a step take about 38 min 0 s" in line
    assert "rollout.groups_per_step" in line and "editor.pixels" in line


def test_alarm_is_told_once_and_reasons_stand_beside_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    alarm = Alarm("reward collapsed", "It fell.")
    with StepProgress(2, 9) as progress:
        progress.show({**ROW, "unscored": 12, "reasons": ["12 x no answer", "1 x other"]}, [alarm])
        progress.show({**ROW, "step": 4}, [alarm])
    lines = said(capsys)
    assert lines[0].endswith("no reward for 12 edits (12 x no answer)")
    assert lines[1] == "ALARM at step 3, reward collapsed: It fell." and len(lines) == 3


def test_a_quiet_run_tells_its_alarms_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with loudness(logging.WARNING), StepProgress(2, 9) as progress:
        progress.begin(["editor: toy"])
        progress.show(ROW, [Alarm("reward collapsed", "It fell.")])
        progress.waits(1)
    assert said(capsys) == ["ALARM at step 3, reward collapsed: It fell."]


def test_waiting_for_a_slow_judge_is_told_with_what_is_judged(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewarding, "POLL", 0.01)
    answer = threading.Event()

    class Slow(RedJudge):
        remote = True

        def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
            answer.wait(30)
            return super().score(requests)

    trainer, seen = make(judge=Slow()), list[int]()
    groups = [trainer.rollout(trainer.dataset[i], i) for i in range(2)]

    def on_wait(done: int) -> None:
        seen.append(done)
        answer.set()

    with Rewarding(trainer.judge, 2) as asking:
        for group in groups:
            asking.start(group)
        while asking.next(on_wait):
            pass
        assert asking.done == 2
    assert seen and seen[0] == 0 and all(group.rewards is not None for group in groups)


def test_header_names_editor_machine_judge_and_data(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make(steps=2, memory__vae_tiling=True)
    trained = sum(param.numel() for param in trainer.params)
    editor, device, judge, data = header(trainer.config, trainer.editor, trainer.params, 5)
    assert f"tiny, {trainer.editor.family.name}, {trained:,} trained parameters (LoRA of rank 2)" in editor
    assert re.search(r"cpu, float32, \d+ CPU cores \(.*\), \d+ GiB, memory: vae_tiling", device)
    assert judge == "judge:  red (score_logit)"
    assert data == "data:   5 items; a step: 2 items × 2 edits, 3 denoiser calls each; 2 steps"
    trainer.train(until=1)
    trainer.train()
    lines = said(capsys)
    assert [line for line in lines if line in (editor, device, judge, data)] == [editor, device, judge, data]
    assert lines.index(data) < next(i for i, line in enumerate(lines) if line.startswith("step 1/2"))


def test_run_with_a_ruinous_learning_rate_sounds_an_alarm(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def collapse(call: int, scores: list[Score]) -> list[Score]:
        return [Score(0.5 + 0.1 * i) if call < 4 else Score(0.01) for i, _ in enumerate(scores)]

    make(judge=RedJudge(collapse), steps=5, rollout__groups_per_step=1).train()
    assert any("ALARM at step 5, reward collapsed: The mean reward fell from 0.55 to 0.01" in x for x in said(capsys))


def test_seconds_of_a_part_are_the_slowest_ranks_and_imbalance_is_the_share_of_waiting() -> None:
    clocks = [{"rollout": 6.0, "train": 2.0, "exchange": 1.0}, {"rollout": 3.0, "judge": 1.0, "exchange": 5.0}]
    assert slowest(clocks) == {"rollout": 6.0, "train": 2.0, "judge": 1.0, "exchange": 5.0}
    assert imbalance(clocks) == pytest.approx(1 - (8 + 4) / (2 * 8))  # to exchange is to wait
    assert by_rank([{"rollout": 6.0, "total": 7.0}, {"judge": 1.0}]) == {"0/rollout": 6.0, "1/judge": 1.0}
    assert imbalance([clocks[0]] * 3) == imbalance([{}, {}]) == 0
