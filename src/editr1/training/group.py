"""The one thing that flows through a training step: G edits of one dataset item, and what became of them.

Letters: G edits of a group.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from editr1.data.samples import EditSample
from editr1.editors.editor import Rollout


@dataclass
class Group:
    """G edits of one sample by the sampling policy.

    Attributes:
        index: Place of the group in its step, from 0.
        sample: The dataset item that was edited.
        rollout: Its edits.
        rewards: [G] in [0, 1]; NaN for an edit without reward (see `reasons`). None until the judge has answered.
        reasons: For each edit, why it has no reward; None if it has one.
        parts: The rewards that are mixed into `rewards`, by name, [G] each; NaN if one is missing.
        parts_reasons: For each of these and each edit, why it is missing; None if it is there.
        is_judged: Whether the rewards are a judge's; those that stand for a stored preference are not told.
        first: Place in the group of the first edit here; another rank may have made those before it.
        prompts: Versions of the words that the judges were asked with.
        advantages: [G], NaN for an edit without reward; None until assigned.
        regions: Those inside and outside of its mask, [2, G]; None if the whole of an edit has one.
        dropped: Why the group is not trained on; None while it is.
    """

    index: int
    sample: EditSample
    rollout: Rollout
    rewards: Tensor | None = None
    reasons: list[str | None] = field(default_factory=list)
    parts: dict[str, Tensor] = field(default_factory=dict)
    parts_reasons: dict[str, list[str | None]] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)
    advantages: Tensor | None = None
    regions: Tensor | None = None
    dropped: str | None = None
    first: int = 0
    is_judged: bool = True

    @property
    def task(self) -> str:
        """The task of its sample."""
        return self.sample.task


def without_latents(group: Group) -> Group:
    """The group without what only its training needs: conditioning, latents and trajectory."""
    rollout = group.rollout
    bare = replace(rollout.conditioning, rows={}, shared={}, source=None)
    return replace(
        group, rollout=replace(rollout, conditioning=bare, latents=rollout.latents.new_empty(0), trajectory=None)
    )
