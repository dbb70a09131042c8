"""The queue of rollout, judge and training against cases by hand, closed forms, and a slow judge in a real step."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
import torch
from PIL import Image

from editr1.data.samples import EditSample
from editr1.editors.editor import Rollout
from editr1.editors.recorder import Conditioning
from editr1.judges.base import JudgeRequest, Score
from editr1.planning.queueing import replicas_needed, run_step, stops_paying
from editr1.training.group import Group
from editr1.training.rewarding import Rewarding


def test_one_worker_and_one_judge_by_hand() -> None:
    # calls end at 10 and 20; the judge needs 4 questions x 3 s: 10..22, then 22..34
    step = run_step([[(10.0, 4), (10.0, 4)]], train=5.0, replicas=1, answer=3.0)
    assert (step.rollout, step.judged, step.end, step.wait) == (20.0, 34.0, 39.0, 14.0)


def test_two_workers_share_two_judges_by_hand() -> None:
    # 1 question at 1 s, 3 at 2 s, 2 s each: judge A 1..3, 3..5; judge B 2..4, 4..6
    step = run_step([[(1.0, 1)], [(2.0, 3)]], train=0.0, replicas=2, answer=2.0)
    assert (step.rollout, step.judged) == (2.0, 6.0)


@pytest.mark.parametrize("replicas", [1, 2, 3, 6])
def test_a_judge_that_is_never_idle_takes_all_questions_over_its_replicas(replicas: int) -> None:
    workers = [[(1.0, 12)]] * 4  # 48 questions at once
    assert run_step(workers, 0.0, replicas, 0.5).judged == pytest.approx(1.0 + 48 / replicas * 0.5)


def test_a_fast_judge_is_waited_for_by_the_last_call_alone() -> None:
    workers = [[(10.0, 12)] * 3]
    assert run_step(workers, 0.0, 2, 0.1).wait == pytest.approx(12 / 2 * 0.1)


def test_without_a_judge_nobody_waits() -> None:
    assert run_step([[(3.0, 2), (4.0, 2)]], 5.0, 0, 1.0).end == 12.0


@pytest.mark.parametrize("answer", [0.05, 0.4, 2.0])
def test_replicas_are_the_fewest_with_which_trainers_hardly_wait(answer: float) -> None:
    workers, train = [[(6.0, 12)] * 3] * 8, 80.0
    found = replicas_needed(workers, train, answer)
    waits = [run_step(workers, train, count, answer) for count in range(1, found + 1)]
    enough = [step.wait <= max(0.05 * step.end, answer) for step in waits]
    assert enough == [False] * (found - 1) + [True]


def test_nodes_stop_paying_where_twice_as_many_are_not_half_as_slow_again() -> None:
    assert stops_paying([(1, 100.0), (2, 50.0), (4, 26.0), (8, 20.0)]) == 4
    assert stops_paying([(1, 100.0), (2, 50.0)]) is None


class Slow:
    """A judge behind some servers, each of which answers one question at a time."""

    remote = True

    def __init__(self, seconds: float, servers: int) -> None:
        self.seconds, self._servers = seconds, threading.Semaphore(servers)

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        for _ in requests:
            with self._servers:
                time.sleep(self.seconds)
        return [Score(1.0) for _ in requests]


@pytest.mark.parametrize(("servers", "seconds"), [(1, 0.2), (2, 0.4)])
def test_a_step_with_a_slow_judge_takes_what_the_queue_says(servers: int, seconds: float) -> None:
    """The trainer's own asking, with a judge that only sleeps: within 15 %."""
    made, groups, edits, train = 0.5, 4, 3, 0.3
    picture = Image.new("RGB", (4, 4))
    nothing: Conditioning = None  # type: ignore[assignment]  # judging looks at pictures alone
    rollout = Rollout(nothing, torch.zeros(edits, 1, 1), [picture] * edits, torch.ones(1), [])
    sample = EditSample("item", picture, "edit")
    start = time.monotonic()
    with Rewarding(Slow(seconds, servers), groups) as rewarding:
        for number in range(groups):
            time.sleep(made)
            rewarding.start(Group(number, sample, rollout))
        while rewarding.next():
            pass
    time.sleep(train)
    planned = run_step([[(made, edits)] * groups], train, servers, seconds)
    assert planned.wait > 0
    assert time.monotonic() - start == pytest.approx(planned.end, rel=0.15)
