"""Settings of `memory` and `parallel` that the planner is given together: each of them counts, or is refused."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import pytest

from editr1.config.loading import load_config
from editr1.config.settings import MemoryConfig, ParallelConfig
from editr1.errors import UserError
from editr1.planning.gpus import parse_gpus
from editr1.planning.plan import Plan, Planner

SMALL = "rollout.steps=2", "rollout.group_size=4", "rollout.groups_per_step=2"
SAVINGS = {
    "gradient_checkpointing": "memory.gradient_checkpointing=true",
    "quantize": "memory.quantize=nf4",
    "offload": "memory.offload=true",
    "cache": "memory.cache=cache",
    "vae_tiling": "memory.vae_tiling=true",
}
SPREADS = {"shard": "parallel.shard=2", "context": "parallel.context=2"}
REFUSED = {"attention": "memory.attention=flash", "compile": "memory.compile=true", "tf32": "memory.tf32=true"}
WITHOUT_EFFECT = {"timeout": "parallel.timeout=60"}
SLACK = 1e-4  # GB: which of two peaks of almost the same height is met differs by some tensors of a picture
EXCLUSIVE = "memory.quantize=nf4", "parallel.shard=2"


@cache
def plan(*overrides: str) -> Plan:
    run = Planner(lambda more: load_config("toy", [*SMALL, *overrides, *more]), parse_gpus("2xH100-80G"))
    return run.plan()


def test_every_setting_of_memory_and_of_parallel_has_its_place_here() -> None:
    known = SAVINGS.keys() | SPREADS.keys() | REFUSED.keys() | WITHOUT_EFFECT.keys()
    assert known == MemoryConfig.model_fields.keys() | ParallelConfig.model_fields.keys()


@pytest.mark.parametrize("other", [*SAVINGS.values(), *SPREADS.values(), "adapter.mode=full"])
@pytest.mark.parametrize("unknown", REFUSED.values())
def test_what_the_planner_does_not_know_it_refuses_beside_what_it_knows(unknown: str, other: str) -> None:
    with pytest.raises(UserError, match=f"{unknown} cannot be planned"):
        plan(unknown, other)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (EXCLUSIVE, "parallel.shard=2 spreads weights of editor.dtype alone"),
        (("memory.quantize=nf4", "adapter.mode=full"), "memory.quantize='nf4' holds weights that cannot be trained"),
    ],
)
def test_settings_that_a_run_refuses_together_are_not_planned(pair: tuple[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(*pair)


@pytest.mark.slow
@pytest.mark.parametrize("pair", list(combinations(SAVINGS.values(), 2)))
def test_two_savings_take_no_more_memory_than_either_alone(pair: tuple[str, str]) -> None:
    both, *alone = (plan(*settings).peak for settings in (pair, pair[:1], pair[1:]))
    assert both <= min(alone) + SLACK <= plan().peak + 2 * SLACK


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS.values())
@pytest.mark.parametrize("saving", SAVINGS.values())
def test_a_saving_saves_as_much_on_two_ranks_that_share_the_work(saving: str, spread: str) -> None:
    """But for activations, of which ranks that share tokens have half, and what quantising cannot be with."""
    if {saving, spread} == set(EXCLUSIVE):
        pytest.skip("refused, see above")
    saved, of_two = plan().peak - plan(saving).peak, plan(spread).peak - plan(spread, saving).peak
    share = 0.25 if (saving, spread) == (SAVINGS["gradient_checkpointing"], SPREADS["context"]) else 0.8
    assert share * saved - SLACK <= of_two <= 1.2 * saved + SLACK


@pytest.mark.slow
def test_all_weights_that_are_trained_are_spread_over_two_ranks() -> None:
    """In float32, with gradients, Adam's two moments, "old" and "reference": half of each is elsewhere."""
    whole, spread = (plan("adapter.mode=full", *more) for more in ((), (SPREADS["shard"],)))
    elsewhere = 6 * 4 * whole.step.parameters / 2
    assert (whole.peak - spread.peak) * 1e9 == pytest.approx(elsewhere, rel=0.15)
    assert spread.step.work["train"].weights > 0 == whole.step.work["train"].weights
