"""A run that is disturbed at random moments and continued is, bit for bit, the run that was not.

Each test tells the stages in which its faults came (`pytest -s`). `make test-slow` has many of each kind.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training.kills import ADVANCE, Disturbance, Fault, draw, full_disk, straight, to_launcher, to_rank
from tests.training.runs import assert_same_run

STOPPED = {130, -signal.SIGTERM}  # before everything is imported, SIGTERM ends it as it does any program
FEW_AND_MANY = [(0, 2), pytest.param(1, 30, marks=pytest.mark.slow)]  # seed, number of faults


def disturbed(
    folder: Path, seed: int, number: int, fault: Fault, ranks: int = 1, settings: Sequence[str] = ()
) -> Disturbance:
    """A run that is to be disturbed; its undisturbed twin is in the folder `straight`."""
    rng, steps = random.Random(seed), ADVANCE * number + 1
    seconds = straight(folder / "straight", steps, ranks, settings)
    return Disturbance(folder / "out", steps, draw(rng, number, seconds), fault, rng, ranks, settings)


def assert_undisturbed(run: Disturbance) -> None:
    sys.stderr.write(f"{len(run.moments)} faults: {dict(run.hits.most_common())}\n")
    assert run.hits.total() == len(run.moments)
    assert_same_run(run.out, run.out.with_name("straight"))


@pytest.mark.long
@pytest.mark.parametrize(("seed", "number"), FEW_AND_MANY)
def test_a_run_that_is_killed_and_continued_by_hand(tmp_path: Path, seed: int, number: int) -> None:
    run = disturbed(tmp_path, seed, number, to_rank(signal.SIGKILL))
    run.by_hand({-signal.SIGKILL})
    assert_undisturbed(run)


@pytest.mark.slow
def test_a_run_that_is_terminated_and_continued_by_hand(tmp_path: Path) -> None:
    run = disturbed(tmp_path, 2, 10, to_rank(signal.SIGTERM))
    run.by_hand(STOPPED)
    assert_undisturbed(run)


@pytest.mark.slow
def test_a_run_whose_disk_fills_up_and_that_is_continued_by_hand(tmp_path: Path) -> None:
    run = disturbed(tmp_path, 3, 10, full_disk(random.Random(3)))
    run.by_hand({2})
    assert_undisturbed(run)


@pytest.mark.long
@pytest.mark.parametrize(("seed", "number"), FEW_AND_MANY)
def test_two_ranks_of_which_one_is_killed_and_torchrun_restarts_both(tmp_path: Path, seed: int, number: int) -> None:
    run = disturbed(tmp_path, seed, number, to_rank(signal.SIGKILL), ranks=2)
    run.under_torchrun()
    assert_undisturbed(run)


SPREAD = ("adapter.mode=full", "parallel.shard=2", "optim.lr=1e-5")


@pytest.mark.slow
def test_two_ranks_that_hold_half_of_the_weights_each_and_are_killed_and_restarted(tmp_path: Path) -> None:
    run = disturbed(tmp_path, 6, 10, to_rank(signal.SIGKILL), 2, SPREAD)
    run.under_torchrun()
    assert_undisturbed(run)


@pytest.mark.slow
def test_two_ranks_that_hold_half_of_the_weights_each_and_whose_disk_fills_up(tmp_path: Path) -> None:
    run = disturbed(tmp_path, 7, 6, full_disk(random.Random(7)), 2, SPREAD)
    run.by_hand({1})
    assert_undisturbed(run)


@pytest.mark.slow
def test_two_ranks_that_hold_half_of_the_weights_each_and_whose_torchrun_is_stopped(tmp_path: Path) -> None:
    run = disturbed(tmp_path, 8, 3, to_launcher(signal.SIGTERM), 2, SPREAD)
    run.by_hand({1})
    assert_undisturbed(run)


@pytest.mark.slow
def test_two_ranks_of_which_one_is_terminated_and_torchrun_restarts_both(tmp_path: Path) -> None:
    run = disturbed(tmp_path, 4, 10, to_rank(signal.SIGTERM), ranks=2)
    run.under_torchrun()
    assert_undisturbed(run)


@pytest.mark.slow
def test_two_ranks_end_by_themselves_when_their_torchrun_is_killed(tmp_path: Path) -> None:
    run = disturbed(tmp_path, 6, 3, to_launcher(signal.SIGKILL), ranks=2)
    run.by_hand({-signal.SIGKILL})  # which waits for the end of all that say something
    assert_undisturbed(run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_ranks_whose_torchrun_is_stopped_and_continued_by_hand(tmp_path: Path, number: signal.Signals) -> None:
    run = disturbed(tmp_path, 5, 3, to_launcher(number), ranks=2)
    run.by_hand({1})
    assert_undisturbed(run)
