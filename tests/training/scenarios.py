"""Runs that one process and several ranks must make alike; `python -m tests.training.scenarios` makes them on a rank.

Three groups of five edits on two ranks, or on four: nothing divides. Where a loss compares edits, a call has five rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from editr1.config.formula import parse_formula
from editr1.config.settings import Config
from editr1.data.samples import EditSample
from editr1.editors import sharding
from editr1.editors.context import open_context, share_tokens
from editr1.editors.open import apply_memory, open_editor
from editr1.judges.base import Judge, JudgeRequest, Score
from editr1.judges.rewards.mixed import MixedJudge
from editr1.judges.rewards.outside import OutsideReward
from editr1.training.distributed import ALONE, World, open_world
from editr1.training.preserving import watch_outside
from editr1.training.process_end import run_and_exit
from editr1.training.trainer import Trainer
from tests.training.runs import Colours, RedJudge, assert_stops_and_goes_on_exactly, redness, settings
from tests.training.stored import Edited, stored_settings, write_groups

FIRST = 0  # the item of the first group of the first step, for seed 0 and two groups
STEPS = 3


class Judged:
    """Scores by the request's item; `remote` asks from threads, `compares` scores a group as a whole."""

    def __init__(
        self, score: Callable[[int, JudgeRequest], Score], remote: bool = False, compares: bool = False
    ) -> None:
        self.by_item, self.remote, self.compares = score, remote, compares

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        scores = [self.by_item(int(request.sample.key[-1]), request) for request in requests]
        if not self.compares:
            return scores
        values = sorted(score.value or 0.0 for score in scores)
        return [Score(values.index(score.value or 0.0) / len(values)) for score in scores]


class TwoSources(Colours):
    """Items with a second source picture."""

    def __getitem__(self, index: int) -> EditSample:
        return replace(super().__getitem__(index), references=(Image.new("RGB", (32, 32), (9, 50 * index, 90)),))


class Masked(Colours):
    """Items of which every other one says what may change: a part of it, or all of the last."""

    def __getitem__(self, index: int) -> EditSample:
        mask = Image.new("L", (32, 32), 255 * (index == 4))
        mask.paste(255, (0, 0, 8 + 4 * index, 16))
        return replace(super().__getitem__(index), mask=None if index % 2 else mask)


class MaskedSources(Masked, TwoSources):
    """The same with a second source picture."""


def red(item: int, request: JudgeRequest) -> Score:
    return Score(redness(request))


def flat_for(*items: int) -> Judged:
    """A judge that finds all edits of some items equally good: the filter drops their groups."""
    return Judged(lambda item, request: Score(0.95) if item in items else red(item, request))


def silent_for(*items: int) -> Judged:
    """A judge that fails for the edits of some items."""
    return Judged(lambda item, request: Score(None, "no answer") if item in items else red(item, request))


def half_red() -> Judge:
    """Two rewards, of which one fails for two items."""
    return MixedJudge({"red": (RedJudge(), 1.0), "other": (silent_for(1, 3), 0.5)})


def opposed() -> Judge:
    """Two rewards that contradict each other; the second leaves out two items."""
    return MixedJudge({"red": (RedJudge(), 1.0), "other": (Judged(blue_or_silent), 0.5)})


def kept_too() -> Judge:
    """A reward and what is kept, outside of given masks or of those that groups derive; one item has no outside."""
    return MixedJudge({"red": (RedJudge(), 1.0), "kept": (OutsideReward(), 0.5)}, optional=("kept",))


def blue_or_silent(item: int, request: JudgeRequest) -> Score:
    return Score(None, "no answer") if item in (1, 4) else Score(1 - redness(request))


def flat_or_silent() -> Judge:
    """Two rewards; for one item nobody answers, for another all edits are equally good, and a third lacks a part."""
    return MixedJudge({"red": (Judged(flat_or_red), 1.0), "other": (silent_for(0, 1), 0.5)})


def flat_or_red(item: int, request: JudgeRequest) -> Score:
    return {0: Score(None, "no answer"), 3: Score(0.95)}.get(item, red(item, request))


def solved_or_silent() -> Judge:
    """Two rewards: one item is solved by both, and each leaves out another one."""
    return MixedJudge({"red": (Judged(flat_or_red), 1.0), "other": (Judged(flat_or_half_red), 0.5)})


def flat_or_half_red(item: int, request: JudgeRequest) -> Score:
    return {1: Score(None, "no answer"), 3: Score(0.95)}.get(item, Score(redness(request) / 2))


def gated() -> Judge:
    """A product of two rewards, which one item lacks; the items of one task have another reward in its place."""
    parts: dict[str, tuple[Judge, float]] = {
        "red": (RedJudge(), 1.0),
        "kept": (silent_for(4), 1.0),
        "plain": (Judged(flat_or_half_red), 0.0),
    }
    formula = parse_formula("red * (0.6 + 0.4 * kept)")
    by_task = {"gated": {"remove": 0.0}, "plain": {"remove": 1.0}}
    return MixedJudge(parts, by_task=by_task, products={"gated": (formula, 2.0)})


PAPER = {"algorithm__filter": "paper", "algorithm__tau_sigma": 0.01}
THRIFTY: dict[str, Any] = {
    "algorithm__kl_share": 0.4,
    "algorithm__informative": 0.6,
    "algorithm__rescaled": True,
    "algorithm__stratified": True,
}
THREE: dict[str, Any] = {"rollout": {"groups_per_step": 3, "steps": 3}, "save_every": STEPS}
SCENARIOS: dict[str, dict[str, Any]] = {
    "lora": {},
    "awm": {"algorithm": {"name": "awm", "filter": "off", "timesteps_per_image": 2, "old_rate": 0.3}},
    **{
        name: {"algorithm__name": name, "optim__micro_batch": 5, "judge": silent_for(1)}
        for name in ("crd", "dgpo", "dpo", "rft")
    },
    "grpo": {"algorithm": {"name": "grpo", "filter": "off", "window": 2, "old_rate": 0.3}, "rollout__steps": 4},
    "grpo, rows left out": {
        "algorithm": {"name": "grpo", "filter": "off", "noise_kind": "cps", "guard": True, "kl": 0.1},
        **THRIFTY,
        "judge": half_red,
        "failures__steps": 99,
    },
    "full": {"adapter__mode": "full"},
    "one group": {"rollout__groups_per_step": 1},
    "a rank's only group dropped": {**PAPER, "rollout__groups_per_step": 2, "judge": flat_for(FIRST)},
    "some dropped": {**PAPER, "judge": flat_for(0, 3)},
    "all dropped": {**PAPER, "judge": flat_for(*range(5))},
    "some unscored": {"judge": silent_for(1, 4)},
    "mixed, one part fails": {"judge": half_red, "failures__steps": 99},
    "a product, by task": {"judge": gated, "algorithm__std": "global", "failures__steps": 99},
    "a product, by task, awm": {
        "algorithm": {"name": "awm", "filter": "off", "timesteps_per_image": 2, "old_rate": 0.3, "std": "group"},
        "judge": gated,
        "rollout__scouts": 7,
        "rollout__scout_steps": 2,
        "failures__steps": 99,
    },
    "a judge that compares": {"judge": Judged(red, compares=True), "rollout__groups_per_step": 1},
    "a remote judge": {"judge": Judged(red, remote=True)},
    "banned items": {**PAPER, "data__ban_solved": True, "judge": flat_for(0, 3)},
    "others drawn": {**PAPER, "rollout__most_groups": 6, "judge": flat_for(0, 3)},
    "others drawn, mixed": {**PAPER, "rollout__most_groups": 9, "judge": flat_or_silent, "failures__steps": 99},
    "scouts": {"rollout__scouts": 7, "rollout__scout_steps": 2},
    "scouts of one group": {"rollout__scouts": 11, "rollout__scout_steps": 2, "rollout__groups_per_step": 1},
    "scouts, others drawn, mixed": {
        **PAPER,
        "rollout__scouts": 8,
        "rollout__scout_steps": 2,
        "rollout__most_groups": 7,
        "judge": flat_or_silent,
        "failures__steps": 99,
    },
    "scouts of a judge that compares": {
        "rollout__scouts": 7,
        "rollout__scout_steps": 2,
        "judge": Judged(red, compares=True),
    },
    "all that saves work": {
        **PAPER,
        **THRIFTY,
        "rollout__scouts": 7,
        "rollout__scout_steps": 2,
        "rollout__most_groups": 7,
        "data__ban_solved": True,
        "judge": solved_or_silent,
        "failures__steps": 99,
    },
    "autocast": {  # ranks round the gradients of other calls to bfloat16, which a small rate keeps small
        "editor__dtype": "bfloat16",
        "adapter__autocast": True,
        "optim__lr": 3e-5,
    },
    "checkpointing": {"memory__gradient_checkpointing": True},
    "cache": {"memory__cache": "cache"},
    "references": {"dataset": TwoSources()},
    "masks": {"preservation__masks": "data", "dataset": MaskedSources(), "memory__cache": "cache"},
    "outside kept": {
        "preservation": {"masks": "data", "weight": 2.0, "margin": 0.01},
        "editor__pixels": 4096,  # 4x4 tokens, of which some are no neighbours of the masks
        "dataset": Masked(),
    },
    "by region": {
        "preservation": {"masks": "data", "advantages": "region", "weight": 0.5},
        "rewards": {"other": {"kind": "preservation", "masks": "data"}},
        "editor__pixels": 4096,
        "dataset": Masked(),
        "judge": opposed,
        "failures__steps": 99,
    },
    "preserve": {"judge": kept_too, "dataset": Masked(), "failures__steps": 99},
    "preserve, awm": {
        "algorithm": {"name": "awm", "filter": "off", "timesteps_per_image": 2, "old_rate": 0.3},
        "preservation__masks": "either",
        "judge": kept_too,
        "dataset": MaskedSources(),
        "failures__steps": 99,
    },
    "masks of groups": {"preservation__masks": "either", "dataset": Masked(), "judge": silent_for(1)},
    "preferences": {"settings": stored_settings(optim__micro_batch=4, **THREE), "dataset": Edited(2)},
    "groups are saved": {"rollout__save_groups": True, "judge": half_red, "failures__steps": 99},
    "pairs": {"settings": stored_settings("pairs", **THREE), "dataset": Edited(1)},
    "pairs, all weights": {
        "settings": stored_settings("pairs", adapter__mode="full", optim__lr=3e-4, **THREE),
        "dataset": Edited(1),
    },
    "groups": {
        "settings": stored_settings(
            "groups",
            **{**THREE, "rollout": {**THREE["rollout"], "group_size": 3}},
            algorithm={"name": "nft", "filter": "off", "timesteps_per_image": 2, "old_rate": 0.3, "kl": 0.1},
            failures__steps=99,
        ),
        "dataset": write_groups,
    },
    "rows left out": {**THRIFTY, "judge": half_red, "failures__steps": 99},
}


def trainer_of(
    name: str, out: Path, editor: Path, world: World = ALONE, shard: int = 1, pixels: int | None = None
) -> Trainer:
    """The trainer of a scenario; its editor's weights are spread over `shard` ranks, edits have `pixels` if given."""
    changes = {**SCENARIOS[name], **({"editor__pixels": pixels} if pixels else {})}
    judge, dataset = changes.pop("judge", None) or RedJudge(), changes.pop("dataset", None) or Colours()
    dataset = dataset(out.parent / f"{name} of rank {world.rank}") if callable(dataset) else dataset
    if changes.get("memory__cache"):
        changes["memory__cache"] = out.parent / "cache"
    sizes = {"rollout__group_size": 5, "rollout__groups_per_step": 3, "optim__lr": 3e-4, "optim__micro_batch": 4}
    stored = changes.pop("settings", None)
    config: Config = stored or settings(**{**sizes, "steps": STEPS, "save_every": STEPS, **changes})
    spread = sharding.open_mesh(world.size, shard, "cpu")
    dtype = getattr(torch, config.editor.dtype)
    opened = open_editor(editor, pixels=config.editor.pixels, dtype=dtype, mesh=spread, meet=world.meet)
    apply_memory(opened, config.memory)
    if (mesh := open_context(world.size, world.context, "cpu")) is not None:
        share_tokens(opened, mesh)
    watch = None if config.preservation is None else watch_outside(opened, config.preservation)
    return Trainer(config, opened, judge() if callable(judge) else judge, dataset, out, watch, world)


def assert_goes_on_exactly(name: str, folder: Path, editor: Path) -> None:
    """A scenario that stops after a step and goes on is the run that never stopped, which is left in `folder`/whole."""
    assert_stops_and_goes_on_exactly(folder, lambda out: trainer_of(name, out, editor))


def main() -> None:
    options = dict(word[2:].split("=") for word in sys.argv[1:] if word.startswith("--"))
    until, context, shard = (int(options.get(*each)) for each in (("until", STEPS), ("context", 1), ("shard", 1)))
    pixels = int(options["pixels"]) if "pixels" in options else None
    folder, editor, *names = [word for word in sys.argv[1:] if not word.startswith("--")]
    sharding.LARGE = 0  # where weights are spread, those of the tiny text encoder are too
    with open_world(60) as world:
        for name in names:
            own = replace(world, context=context)
            trainer = trainer_of(name, Path(folder) / name, Path(editor), own, shard, pixels)
            assert trainer.editor.is_sharded == (shard > 1)
            trainer.train(until=until)


if __name__ == "__main__":
    run_and_exit(main)
