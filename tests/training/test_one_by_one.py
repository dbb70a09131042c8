"""Groups that need no reward of others are trained on one by one: the same gradient, earlier, in less memory."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from editr1.judges.base import Judge, JudgeRequest, Score
from editr1.judges.rewards.mixed import MixedJudge
from editr1.training.gradient import Gradient
from editr1.training.interrupts import Interrupts
from editr1.training.trainer import Trainer
from tests.training.runs import Make, RedJudge, assert_same_run, redness

PATIENCE = 600.0  # seconds
THREE = {"rollout__groups_per_step": 3, "rollout__group_size": 4}


def trained(trainer: Trainer, one_by_one: bool) -> tuple[dict[str, Any], torch.Tensor]:
    """Loss, parts and norm of a step; the gradient."""
    losses = (trainer._one_by_one() if one_by_one else trainer._together(Interrupts()))[2]
    return losses, torch.cat([param.grad.flatten() for param in trainer.params if param.grad is not None])


def test_where_no_group_is_dropped_the_gradient_is_that_of_all_groups_at_once_bit_for_bit(make: Make) -> None:
    (losses, gradient), (expected, right) = (trained(make(**THREE), one_by_one) for one_by_one in (True, False))
    assert losses == expected and losses["loss"] and gradient.abs().max() > 0
    assert torch.equal(gradient, right)


def some_missing() -> Judge:
    """Two rewards; the second group has none, the third lacks two edits' and has one reward alone."""

    def missing(call: int, scores: list[Score]) -> list[Score]:
        nothing = Score(None, "no answer")
        return [scores, [nothing] * 4, [*scores[:2], nothing, nothing]][call]

    def other(call: int, scores: list[Score]) -> list[Score]:
        return scores if call == 0 else [Score(None, "no answer")] * 4

    return MixedJudge({"red": (RedJudge(missing), 1.0), "other": (RedJudge(other), 0.5)})


@pytest.mark.parametrize("grad_clip", [1e9, 1e-3])
def test_with_dropped_groups_and_missing_and_mixed_rewards_it_is_the_same_to_rounding(
    make: Make, grad_clip: float
) -> None:
    ways = [make(judge=some_missing(), optim__grad_clip=grad_clip, **THREE) for _ in range(2)]
    (losses, gradient), (expected, right) = trained(ways[0], True), trained(ways[1], False)
    assert losses == pytest.approx(expected, rel=1e-6) and losses["loss"]
    assert torch.allclose(gradient, right, rtol=1e-6, atol=1e-6 * float(right.abs().max()))
    assert float(gradient.norm()) == pytest.approx(min(grad_clip, losses["grad_norm"]), rel=1e-4)


def test_a_sum_over_expected_rows_becomes_the_mean_over_those_that_there_are(make: Make) -> None:
    trainer, weight = make(), torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    gradient = Gradient(torch.optim.SGD([weight]), trainer.algorithm, rows=8)
    for loss, rows in ((weight[0] ** 2, 2), (3 * weight[1], 3)):
        gradient.add(loss, dict.fromkeys(trainer.algorithm.parts, loss.detach() / 2), rows)
    gradient.divide_by(5)
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([2 * 2 / 5, 3 * 3 / 5])
    mean = (1 * 2 + 6 * 3) / 5
    assert list(gradient.losses(5).values()) == pytest.approx([mean] + [mean / 2] * len(trainer.algorithm.parts))
    assert set(gradient.losses(0).values()) == {None}


class Remote:
    """Answers for the red of an edit, from threads: about a group only when all later ones of its step are answered."""

    remote = True

    def __init__(self, groups: int) -> None:
        self.groups, self.asked, self.answered = groups, 0, 0
        self.turn = threading.Condition()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        with self.turn:
            number, self.asked = self.asked, self.asked + 1
            step, place = divmod(number, self.groups)
            before = step * self.groups + self.groups - 1 - place
            assert self.turn.wait_for(lambda: self.answered == before, PATIENCE)
            self.answered += 1
            self.turn.notify_all()
        return [Score(redness(request)) for request in requests]


def test_a_remote_judge_that_answers_the_last_group_first_makes_the_same_run_bit_for_bit(
    make: Make, tmp_path: Path
) -> None:
    make("local", steps=3, **THREE).train()
    make("remote", Remote(3), steps=3, **THREE).train()
    assert_same_run(tmp_path / "local", tmp_path / "remote")


class Slow:
    """Answers about the first group of the step; about the others only when a gradient has been computed."""

    remote = True

    def __init__(self) -> None:
        self.trained, self.keys = threading.Event(), list[str]()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        self.keys.append(requests[0].sample.key)
        if len({*self.keys}) > 1:
            assert self.trained.wait(PATIENCE), "nothing was trained on meanwhile"
        return [Score(redness(request)) for request in requests]


def test_a_group_is_trained_on_while_the_judge_works_on_the_next(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Slow()
    trainer = make(judge=judge, steps=1, **THREE)
    velocity = trainer.editor.velocity

    def told(*inputs: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            judge.trained.set()
        return velocity(*inputs)

    monkeypatch.setattr(trainer.editor, "velocity", told)
    trainer.train()
    assert trainer.step == 1 and judge.trained.is_set()


@pytest.mark.parametrize("std", ["group", "global"])
def test_latents_of_a_group_are_freed_when_it_is_trained_on_unless_the_algorithm_needs_the_whole_step(
    make: Make, std: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(steps=1, algorithm__std=std, rollout__groups_per_step=4, rollout__group_size=2)
    latents, alive = list[weakref.ref[Any]](), list[int]()
    rollout = trainer.editor.rollout

    def counted(*args: Any, **how: Any) -> Any:
        gc.collect()
        alive.append(sum(tensor() is not None for tensor in latents))
        made = rollout(*args, **how)
        latents.append(weakref.ref(made.latents))
        return made

    monkeypatch.setattr(trainer.editor, "rollout", counted)
    trainer.train()
    assert alive == ([0, 1, 1, 1] if std == "group" else [0, 1, 2, 3])  # the last one made is still at hand
