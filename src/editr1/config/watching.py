"""The settings of what is watched while a run trains: judges that fail, a second judge, and what must not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from editr1.algorithms.base import Algorithm
from editr1.config.rewards import (
    WHOLE_TASKS,
    JudgeConfig,
    MaskSource,
    PreservationConfig,
    RewardConfig,
    products_of,
)
from editr1.config.section import Section


class FailureConfig(Section):
    """When a judge that fails stops the run; holds for the reward as a whole and for each that is mixed into it."""

    share: float = Field(default=0.5, gt=0, le=1)
    """Share of a step's edits without reward above which the step fails."""
    steps: int = Field(default=3, gt=0)
    """Failing steps in a row that stop the run, with a checkpoint."""


class WatchConfig(Section):
    """A second judge that scores some edits. Its scores are not trained on; they show whether the first is fooled."""

    judge: JudgeConfig
    """The judge, with settings as those of `judge`; another model, or other words."""
    every: int = Field(default=4, gt=0)
    """One of so many edits of each group is scored."""

    @model_validator(mode="after")
    def _scores_one_edit(self) -> WatchConfig:
        if self.judge.method == "ranking":
            raise ValueError('watch.judge.method="ranking" compares the edits of a group; use one that scores an edit')
        return self


class KeptConfig(Section):
    """How well edits keep what they must not change: PSNR and SSIM outside of a mask; and a loss that holds it."""

    masks: MaskSource = "either"
    """Those of the items (data), where the edits of a group agree to differ from their source (group), or this for
    items without one (either). Held-out edits are measured by those of the items alone."""
    whole_tasks: tuple[str, ...] = WHOLE_TASKS
    """Task types whose edits are of the whole picture: no mask is derived for them."""
    features: str | None = None
    """Folder of a vision model such as DINOv2, saved with its processor, that measures likeness outside too."""
    weight: float = Field(default=0.0, ge=0)
    """Weight of a loss that holds latents outside of the mask near the source's; 0 trains nothing on masks."""
    margin: float = Field(default=0.0, ge=0)
    """Mean square of their distance that costs nothing (with `weight`)."""
    advantages: Literal["edit", "region"] = "edit"
    """Each edit has one advantage (edit); or one inside of its mask, from the judge and other rewards, and one outside,
    from the rewards of kind preservation (region), for algorithm "nft"."""

    @property
    def trains(self) -> bool:
        """Whether anything is trained on masks."""
        return self.weight > 0 or self.advantages == "region"

    @model_validator(mode="after")
    def _margin_of_a_loss(self) -> KeptConfig:
        if self.margin and not self.weight:
            raise ValueError(
                f"preservation.margin={self.margin:g} is of the loss: set preservation.weight too, or leave it"
            )
        return self


def fault_by_region(
    kept: KeptConfig, algorithm: Algorithm, judge: JudgeConfig | None, rewards: Mapping[str, RewardConfig]
) -> str | None:
    """What keeps a run from its advantages by region, in words; None if nothing, or if it has none."""
    if kept.advantages != "region":
        return None
    setting, remedy = 'preservation.advantages="region"', 'or set preservation.advantages to "edit"'
    if not algorithm.weighs_regions:
        return f'{setting}: algorithm {algorithm.name!r} takes one advantage per edit; use "nft", {remedy}'
    if algorithm.rescaled:
        return f"{setting}: algorithm.rescaled scales the one advantage of an edit; leave it at false, {remedy}"
    factors = {name for formula in products_of(judge, rewards).values() for name in formula.names}
    outside = {
        name: own for name, own in rewards.items() if isinstance(own, PreservationConfig) and name not in factors
    }
    if not outside:
        return f"{setting} needs a reward of kind preservation, beside those of a formula; add one to rewards, {remedy}"
    for name, own in outside.items():
        if own.masks != kept.masks:
            there = f'rewards.{name}.masks="{own.masks}" and preservation.masks="{kept.masks}"'
            return f"{setting}: {there} are not the same regions; set both alike, {remedy}"
        if kept.masks != "data" and {*own.whole_tasks} != {*kept.whole_tasks}:
            there = f"rewards.{name}.whole_tasks differs from preservation.whole_tasks"
            return f"{setting}: {there}; set both alike, {remedy}"
    return None
