"""Runs that leave out rows: calls that are not made, and the same run in any batches, after a stop and on two ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from editr1.algorithms.base import find_algorithms
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from tests.ranks import torchrun
from tests.training.runs import ONLINE, Make, RedJudge, assert_same_run
from tests.training.scenarios import THRIFTY
from tests.training.test_ranks import weights
from tests.training.test_trainer import counted_rows

SMALL = ("rollout.groups_per_step=3", "rollout.group_size=4", "rollout.steps=2", "algorithm.filter=off", "steps=2")


class SomeFail(RedJudge):
    """Gives every third edit no reward."""

    def score(self, requests: list[JudgeRequest]) -> list[Score]:  # type: ignore[override]
        scores = super().score(requests)
        return [Score(None, "no answer") if i % 3 == 2 else score for i, score in enumerate(scores)]


@pytest.mark.parametrize("name", ONLINE)
def test_a_run_that_leaves_out_rows_goes_on_exactly_with_missing_rewards(make: Make, tmp_path: Path, name: str) -> None:
    senseless = {f"algorithm__{setting}" for setting in find_algorithms()[name].senseless}
    changes = {
        **{setting: value for setting, value in THRIFTY.items() if setting not in senseless},
        "rollout__group_size": 5,
        "algorithm__name": name,
        "rollout__groups_per_step": 1,
        "save_every": 1,
    }
    make(judge=SomeFail(), steps=1, **changes).train()
    make(judge=SomeFail(), steps=3, **changes).train()
    make(judge=SomeFail(), out="straight", steps=3, **changes).train()
    assert_same_run(tmp_path / "out", tmp_path / "straight")
    assert all(row["update_norm"] > 0 for row in read_lines(tmp_path / "out" / "metrics.jsonl"))


def test_the_untrained_editor_is_asked_about_the_drawn_rows_of_the_trained_edits_alone(make: Make) -> None:
    trainer = make(judge=SomeFail(), steps=1, optim__micro_batch=2, rollout__group_size=5, **THRIFTY)
    with counted_rows(trainer.editor) as calls:
        trainer.train()
    trained = [rows for policy, with_gradient, rows in calls if with_gradient]
    asked = [rows for policy, _, rows in calls if policy == "reference"]
    assert trained == [2, 2] * 2  # of five edits four have a reward, of these two are trained on, at two levels each
    assert sum(asked) == 2 * 2 and 0 not in asked  # of four rows of a group two are drawn


def test_batches_of_any_size_make_the_run_also_where_no_row_of_one_asks_the_untrained_editor(make: Make) -> None:
    rows = []
    for size in (1, 3, 100):
        trainer = make(
            judge=SomeFail(), out=f"out-{size}", steps=3, optim__micro_batch=size, rollout__group_size=5, **THRIFTY
        )
        trainer.train()
        rows.append([(row["loss"], row["grad_norm"], row["kl"]) for row in read_lines(trainer.out / "metrics.jsonl")])
    assert np.allclose(rows[0], rows[1], rtol=1e-4) and np.allclose(rows[0], rows[2], rtol=1e-4)


@pytest.mark.long
def test_two_ranks_that_hold_half_of_the_weights_each_ask_equally_often_and_make_the_run_of_one(tmp_path: Path) -> None:
    thrifty = ("algorithm.kl_share=0.2", "algorithm.informative=0.8", "optim.micro_batch=1", "optim.lr=1e-4")
    runs = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        own = (*SMALL, *thrifty, f"parallel.shard={ranks}", "parallel.timeout=200", f"out={out}")
        result = torchrun(ranks, "editr1", "train", "toy", *own)
        assert result.returncode == 0, result.stderr[-3000:]
        runs.append([row["kl"] for row in read_lines(out / "metrics.jsonl")])
    assert runs[0] == pytest.approx(runs[1], rel=1e-2) and runs[0][1] > 0
    expected = weights(tmp_path / "1")
    assert (weights(tmp_path / "2") - expected).norm() <= 1e-5 * expected.norm()
