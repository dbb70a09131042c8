"""The settings of what a run is trained and measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from editr1.algorithms.base import Algorithm, SchedulerName
from editr1.config.section import Section

Split = Literal["sft", "rl", "heldout"]
Level = Literal["small", "full"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
STORED: dict[str, int | None] = {"preferences": 2, "pairs": 1, "groups": None}
"""The kinds of data with stored edits, and how many of them an item has; None for as many as a run made."""


class DataConfig(Section):
    """The items to edit."""

    kind: Literal["toy", "jsonl", "function", "preferences", "pairs", "groups"] = "jsonl"
    """The built-in toy world, items on the disk, or a Python function that returns the items. Items with edits, to
    train on without making any (docs/offline.md): two of which one is better (preferences), one (pairs), or those that
    another run made and judged (groups)."""
    path: Path | None = None
    """A folder with a data.jsonl; a parquet file, a webdataset shard (.tar), a folder or a pattern of such files, as in
    data/train-*.parquet; a dataset that `save_to_disk` of datasets wrote. "pkg.module:name" for kind "function"."""
    root: Path | None = None
    """A folder whose pictures the items may name by absolute paths or through links; null for `path` alone."""
    changed: bool = False
    """Go on although lines or pictures are not what they were when the run began; what is there now counts then."""
    split: Split = "rl"
    """Part of the toy world."""
    level: Level = "small"
    """Richness of the toy world."""
    seed: Seed = 0
    """Seed of the toy items."""
    size: int = Field(default=512, gt=0, le=10_000_000)
    """Number of toy items."""
    ban_solved: bool = False
    """Never draw an item again once its edits are good and agree (tau_mu, tau_sigma), as in the released code."""

    @property
    def is_stored(self) -> bool:
        """Whether edits are read and not made."""
        return self.kind in STORED

    @model_validator(mode="after")
    def _path_of_items(self) -> DataConfig:
        if (self.kind == "jsonl" or self.is_stored) and self.path is None:
            raise ValueError(f'data.path must name the folder when data.kind is "{self.kind}"')
        if self.kind == "function" and self.path is None:
            raise ValueError('data.path must be "pkg.module:name" of your items when data.kind is "function"')
        return self

    @model_validator(mode="after")
    def _bans_of_lines_that_stay(self) -> DataConfig:
        if self.changed and self.ban_solved:
            raise ValueError(
                "data.ban_solved bans items by their place, so data that changed needs a new run: set another out"
            )
        return self


class EvaluationConfig(Section):
    """Held-out items that are edited and judged before, during and after training; give either data or split."""

    data: Path | None = None
    """The held-out items, in any form of data.path; null with split."""
    split: float | None = Field(default=None, gt=0)
    """Held-out part of the run's own data, which training never draws: a share below 1, or a number of items."""
    every: int | None = Field(default=None, gt=0)
    """Steps between two evaluations; null for before and after training alone."""
    items: int | None = Field(default=None, gt=0)
    """Number of held-out items that are measured, a fixed choice of them; null for all."""
    edits: int = Field(default=2, gt=0, le=1000)
    """Edits per item, each from noise of its own that is the same in every evaluation."""
    steps: int = Field(default=28, ge=2, le=1000)
    """Denoiser calls per edit."""
    scheduler: SchedulerName = "euler"
    """Sampler, as in `rollout`."""

    @model_validator(mode="after")
    def _one_origin(self) -> EvaluationConfig:
        if (self.data is None) == (self.split is None):
            raise ValueError("evaluation: give either data (a folder of held-out items) or split (a part of the data)")
        if self.split is not None and self.split >= 1 and not self.split.is_integer():
            raise ValueError(f"evaluation.split={self.split:g}: give a share below 1, or a whole number of items")
        return self


def fault_of_stored(
    data: DataConfig, evaluation: EvaluationConfig | None, algorithm: Algorithm, judged: bool
) -> str | None:
    """What does not go with items that have edits, in words; None if all does.

    Args:
        data: The items.
        evaluation: The evaluation, if there is one.
        algorithm: What trains on the edits.
        judged: Whether there is a judge or another reward.
    """
    if judged and evaluation is None:
        return "a judge scores held-out items alone; leave judge and rewards out, or set evaluation"
    if evaluation is not None and not judged:
        return "evaluation asks a judge about held-out edits; give judge or rewards, or leave evaluation out"
    if data.kind == "groups" and evaluation is not None and evaluation.split is not None:
        return "groups repeat items, so evaluation.split would not part them; name a folder in evaluation.data"
    if algorithm.keeps_trajectory:
        return f'algorithm "{algorithm.name}" needs the path of a sampler, which they lack; use dpo, nft or sft'
    if data.kind == "pairs" and algorithm.uses_rewards:
        return f'algorithm "{algorithm.name}" compares edits, and an item has one; set algorithm.name to "sft"'
    if data.kind == "preferences" and not algorithm.uses_rewards:
        return f'algorithm "{algorithm.name}" trains on good and bad alike; set algorithm.name to "dpo" or "rft"'
    return None
