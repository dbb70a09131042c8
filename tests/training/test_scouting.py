"""Scouts: which edits are made again, from which noise, and what is learnt from them."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import nullcontext
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from editr1.algorithms.base import Algorithm, Rows, Velocities
from editr1.algorithms.nft import NFT
from editr1.config.settings import RolloutConfig
from editr1.editors.editor import Editor, Rollout
from editr1.files import read_lines
from editr1.judges.base import Judge, JudgeRequest, Score
from editr1.judges.rewards.mixed import MixedJudge
from editr1.training.exchange import Judged, Rewarded
from editr1.training.scouting import extremes, scout_numbers
from tests.training.runs import STEPS, Make, RedJudge, assert_same_run, redness, settings

NAN = math.nan
SCOUTS = {"rollout__scouts": 6, "rollout__scout_steps": 2, "rollout__group_size": 4}


@pytest.mark.parametrize(
    ("advantages", "count", "places"),
    [
        ([0.1, 0.9, 0.5, 0.3, 0.7], 2, [0, 1]),
        ([0.1, 0.9, 0.5, 0.3, 0.7], 3, [0, 1, 4]),
        ([0.5, 0.5, 0.5, 0.5, 0.5], 4, [0, 1, 3, 4]),
        ([NAN, 0.9, NAN, 0.3, 0.7, 0.2], 2, [1, 5]),
        ([NAN, 0.9, NAN, 0.3, NAN], 3, [0, 1, 3]),
        ([NAN, NAN, NAN], 2, [0, 1]),
    ],
)
def test_the_best_and_the_worst_are_made_again_and_one_without_reward_only_for_want_of_others(
    advantages: list[float], count: int, places: list[int]
) -> None:
    assert extremes(torch.tensor(advantages), count) == places


def rewarded(*rewards: float) -> Any:
    return Rewarded(index=0, task="", rewards=torch.tensor(rewards), parts={})


def test_the_row_says_how_good_scouts_are_and_whether_their_order_holds() -> None:
    scouts, again = rewarded(0.25, 0.75, NAN, 0.5), rewarded(0.5, 0.75, 0.5)
    numbers = scout_numbers([scouts], {0: [0, 1, 3]}, [again])
    # pairs by scouts: 1 over 0 (holds), 1 over 3 (holds), 3 over 0 (now equal)
    assert numbers == {"scout_reward": 0.5, "scout_unscored": 1, "scout_order": pytest.approx(2.5 / 3)}
    assert scout_numbers([rewarded(NAN, NAN)], {0: [0, 1]}, [rewarded(NAN, 0.5)]) == {
        "scout_reward": None,
        "scout_unscored": 2,
        "scout_order": None,
    }


class Watched:
    """Every rollout of an editor: its arguments and what came of it; `make` makes more, unwatched."""

    def __init__(self, editor: Editor) -> None:
        self.calls: list[tuple[dict[str, Any], Rollout]] = []
        self.make = editor.rollout
        editor.rollout = self.rollout  # type: ignore[method-assign,assignment]

    def rollout(self, sample: Any, count: int, **how: Any) -> Rollout:
        made = self.make(sample, count, **how)
        self.calls.append(({"sample": sample, "count": count, **how}, made))
        return made


def test_edits_are_made_again_from_the_noise_of_the_best_and_the_worst_scouts_and_these_alone_are_trained_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(steps=1, **SCOUTS)
    watched, credited = Watched(trainer.editor), list[Judged]()
    monkeypatch.setattr(trainer, "_hand_out", partial(recorded, trainer._hand_out, credited))
    trainer.train()
    scouts, again = watched.calls[:2], watched.calls[2:]
    assert [(how["count"], [*how["places"]], how["steps"]) for how, _ in scouts] == [(6, [*range(6)], 2)] * 2
    for (scout, first), (how, second), judged in zip(scouts, again, credited, strict=True):
        reds = [redness(JudgeRequest(scout["sample"], image)) for image in first.images]
        ranked = sorted(range(6), key=lambda i: reds[i])
        assert how["places"] == sorted(ranked[:2] + ranked[-2:]) and (how["steps"], how["count"]) == (STEPS, 4)
        assert how["seed"] == scout["seed"]
        with trainer.editor.policies.using("reference"):  # the sampling policy of the first step
            whole = watched.make(how["sample"], 6, steps=STEPS, seed=how["seed"], scheduler="dpm2").latents
        assert torch.allclose(second.latents, whole[how["places"]], atol=1e-6)
        rewards = torch.tensor([redness(JudgeRequest(how["sample"], image)) for image in second.images])
        assert torch.allclose(judged.rewards, rewards)
        (expected,) = NFT(std="group").credit([rewards]).advantages
        assert judged.advantages is not None and torch.allclose(judged.advantages, expected, atol=1e-5)


def recorded(hand_out: Any, credited: list[Judged], groups: Any, judged: list[Judged]) -> Any:
    credited += judged
    return hand_out(groups, judged)


def half() -> Judge:
    """Two rewards; the first edit of every question has none, and one reward is missing for every third question."""

    def first_missing(call: int, scores: list[Score]) -> list[Score]:
        return [Score(None, "no answer"), *scores[1:]]

    def some_missing(call: int, scores: list[Score]) -> list[Score]:
        return [Score(None, "no answer")] * len(scores) if call % 3 == 0 else first_missing(call, scores)

    return MixedJudge({"red": (RedJudge(first_missing), 1.0), "other": (RedJudge(some_missing), 0.5)})


@pytest.mark.parametrize("std", ["group", "global"])
def test_a_run_with_scouts_goes_on_exactly_with_mixed_and_missing_rewards(
    make: Make, tmp_path: Path, std: Literal["group", "global"]
) -> None:
    more = {**SCOUTS, "failures__steps": 99, "algorithm__std": std, "rollout__groups_per_step": 3}
    make("whole", half(), steps=3, **more).train()
    make("parts", half(), steps=1, **more).train()
    make("parts", half(), steps=3, **more).train()  # 6 questions in a step: every session starts with a missing part
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    for row in read_lines(tmp_path / "whole" / "metrics.jsonl"):
        assert row["scout_unscored"] == row["unscored"] == 3 and 0 <= row["scout_order"] <= 1
        assert row["parts_unscored"]["red"] == 3 < row["parts_unscored"]["other"] and row["update_norm"] > 0


def test_without_a_scout_that_has_a_reward_the_first_edits_are_made_and_judged(make: Make) -> None:
    def dead_scouts(call: int, scores: list[Score]) -> list[Score]:
        return scores if call % 4 > 1 else [Score(None, "too blurred")] * len(scores)

    trainer = make(judge=RedJudge(dead_scouts), steps=2, **SCOUTS)
    watched = Watched(trainer.editor)
    trainer.train()
    assert [how["places"] for how, _ in watched.calls[2:4]] == [[0, 1, 2, 3]] * 2
    rows = read_lines(trainer.out / "metrics.jsonl")
    assert [(row["scout_unscored"], row["unscored"], row["groups_kept"]) for row in rows] == [(12, 0, 2)] * 2


@pytest.mark.parametrize(
    ("rollout", "words"),
    [
        ({"group_size": 4, "scouts": 4}, r"scouts=4 leaves no choice; give more than rollout\.group_size=4, or null"),
        (
            {"scouts": 24, "scout_steps": 6},
            r"scout_steps=6 makes scouts as dear as edits; give fewer than rollout\.ste",
        ),
    ],
)
def test_scouts_that_save_nothing_are_refused(rollout: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RolloutConfig(**rollout)


class OfPaths(Algorithm):
    title: ClassVar = "Needs the sampler's path"
    parts: ClassVar = {}
    keeps_trajectory: ClassVar = True

    def asks(self, step: int) -> tuple[str, ...]:
        return ()

    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        return velocities["default"].mean(), {}


def test_an_algorithm_whose_sampler_draws_noise_takes_no_scouts() -> None:
    name = f"{__name__}:OfPaths"
    assert settings(algorithm={"name": name}).algorithm.keeps_trajectory
    with pytest.raises(
        ValidationError, match=r"rollout\.scouts=6 needs edits that follow from their first noise alone"
    ):
        settings(algorithm={"name": name}, **SCOUTS)


def test_scouts_and_the_edits_that_are_made_again_share_what_is_encoded_and_no_bit_differs(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the first prompt of a session: its rows are compared with those that the pipeline itself repeats."""
    calls = dict[str, list[str]]()
    for name in ("once", "twice"):
        trainer, calls[name] = make(name, steps=2, **SCOUTS), list[str]()
        for part in ("text_encoder", "vae.encoder"):
            module = attrgetter(part)(trainer.editor.pipe)
            module.register_forward_hook(lambda *_, part=part, told=calls[name]: told.append(part))
        trainer.train()
        monkeypatch.setattr("editr1.training.collecting.Encodings", lambda pipe: SimpleNamespace(kept=nullcontext))
    assert_same_run(tmp_path / "once", tmp_path / "twice")
    assert Counter(calls["twice"]) == {"text_encoder": 2 * 2 * 2, "vae.encoder": 2 * 2 * 2}
    assert Counter(calls["once"]) == {"text_encoder": 2 * 2 + 1, "vae.encoder": 2 * 2}
