"""The published way of making a step computes what ours does, by as many rows of each model as it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editr1.config.loading import load_config
from editr1.training.distributed import ALONE
from editr1.training.exchange import Judged, gather_groups
from editr1.training.group import Group
from editr1.training.log import Stopwatch
from editr1.training.rewarding import assign_advantages
from editr1.training.trainer import Trainer
from tests.benchmarks.scripts import script

ROOT = Path(__file__).parents[2]
GROUPS, G, S, T = 2, 3, 2, 1
SIZES = (
    f"rollout.groups_per_step={GROUPS}",
    f"rollout.group_size={G}",
    f"rollout.steps={S}",
    f"algorithm.timesteps_per_image={T}",
    "algorithm.filter=off",
)
POLICIES = 3  # default, old, reference


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """benchmarks/recipe.py, which imports its neighbour."""
    with script("recipe") as module:
        yield module


@pytest.fixture(scope="module")
def ways(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Any]:
    """Ours after two steps, when the old policy is no longer the trained one; and the recipe, from its checkpoint."""
    config = load_config("toy", [*SIZES, f"out={tmp_path_factory.mktemp('ways')}"])
    ours = bench.open_way(Trainer, config)
    bench.step(ours)
    assert bench.count_calls(ours) == calls(encoded=GROUPS, trained=GROUPS * G * T * 2)  # v_old is v
    ours.save()
    recipe = bench.open_way(bench.Recipe, config)
    assert recipe.step == 2
    return ours, recipe


def calls(encoded: int, trained: int) -> dict[str, dict[str, int]]:
    """The rows of a step by stage and model."""
    images = GROUPS * G
    return {
        "encode": {"encoder": encoded, "vae": encoded},
        "rollout": {"denoiser": images * S},
        "decode": {"vae": images},
        "judge": {"judge": images},
        "train": {"denoiser": trained},
    }


def collected(trainer: Trainer) -> tuple[list[Group], list[Judged]]:
    groups = trainer._collect()
    judged = gather_groups(ALONE, groups)
    assign_advantages(judged, trainer.algorithm)
    return groups, judged


def trained(trainer: Trainer, groups: Sequence[Group], judged: Sequence[Judged]) -> tuple[dict[str, Any], Tensor]:
    """Loss, parts and norm on these groups; the gradient."""
    trainer.clock = Stopwatch()
    losses = trainer._backward(trainer._hand_out(groups, judged))
    return losses, torch.cat([param.grad.flatten() for param in trainer.params if param.grad is not None])


@pytest.mark.parametrize("dropped", [0, 1])
def test_on_the_same_groups_loss_and_gradient_of_both_ways_are_the_same(
    ways: tuple[Trainer, Any], dropped: int
) -> None:
    groups, judged = collected(ways[0])
    for each in judged[:dropped]:
        each.dropped = "agree_and_high"
    (losses, gradient), (expected, right) = (trained(trainer, groups, judged) for trainer in ways)
    assert losses == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert losses["loss"] and losses["kl"] and gradient.abs().max() > 1e-5
    assert torch.allclose(gradient, right, rtol=1e-5, atol=1e-5 * float(right.abs().max()))


def test_both_ways_make_the_same_edits_and_rewards_of_a_seed(ways: tuple[Trainer, Any]) -> None:
    (ours, judged), (recipe, judged_again) = map(collected, ways)
    for one, other in zip(ours, recipe, strict=True):
        assert torch.allclose(one.rollout.latents, other.rollout.latents, rtol=0, atol=1e-4)
        assert one.rewards is not None and other.rewards is not None
        assert torch.allclose(one.rewards, other.rewards, rtol=0, atol=1e-4)
    assert [each.index for each in judged] == [each.index for each in judged_again] == list(range(GROUPS))


def test_the_recipe_asks_its_judge_when_all_groups_are_made(
    ways: tuple[Trainer, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    for trainer in ways:
        order: list[str] = []
        rollout, score = trainer.rollout, trainer.judge.score
        monkeypatch.setattr(trainer, "rollout", lambda *a, o=order, f=rollout: o.append("rollout") or f(*a))
        monkeypatch.setattr(trainer.judge, "score", lambda *a, o=order, f=score: o.append("judge") or f(*a))
        trainer._collect()
        orders.append(order)
    assert orders == [["rollout", "judge"] * GROUPS, ["rollout"] * GROUPS + ["judge"] * GROUPS]


def test_a_step_of_which_nothing_is_kept_leaves_the_weights_both_ways(ways: tuple[Trainer, Any]) -> None:
    groups, judged = collected(ways[0])
    for group in judged:
        group.dropped = "agree_and_high"
    for trainer in ways:
        trainer.clock = Stopwatch()
        assert trainer._hand_out(groups, judged) == []
        assert trainer._total == 0


def test_rows_are_the_fewest_the_loss_needs_and_the_recipe_encodes_every_image_and_trains_on_all(
    bench: Any, ways: tuple[Trainer, Any]
) -> None:
    ours, recipe = ways
    bench.count_calls(recipe)  # the first step of a session replays a call of the pipeline, to compare
    for kept in (GROUPS, GROUPS // 2):
        if kept < GROUPS:
            for trainer in ways:
                bench.drop_half(trainer)
        needed = calls(encoded=GROUPS, trained=kept * G * T * POLICIES)
        assert bench.count_calls(ours) == bench.fewest_calls(ours, kept) == needed
        assert bench.count_calls(recipe) == calls(encoded=GROUPS * G, trained=GROUPS * G * T * POLICIES)
