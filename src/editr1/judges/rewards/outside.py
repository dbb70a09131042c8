"""How much of the picture outside of a mask is kept: PSNR beside the source, as `preservation/measure.py` has it.

The mask is that of the item, or where the edits of the group agree to differ from their source. So the damage of single
edits lies outside and costs them. An edit that changes nothing gets 1: this reward must be mixed with one that wants
the edit done. An edit without a mask, or whose mask leaves nothing outside, has no score, as none applies to it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from editr1.config.rewards import WHOLE_TASKS, MaskSource
from editr1.judges.base import JudgeRequest, Score, groups_of
from editr1.preservation.masks import find_mask
from editr1.preservation.measure import NO_OUTSIDE, psnr, view_of

NOTHING, ALL = 10.0, 40.0  # dB: as little as unrelated pictures have in common; no difference that is seen


class OutsideReward:
    """(PSNR - 10 dB) / 30 dB, clipped to [0, 1], outside of the mask.

    Args:
        masks: Whose masks; see `PreservationConfig`.
        whole_tasks: Task types for which no mask is derived.
    """

    remote = False

    def __init__(self, masks: MaskSource = "either", whole_tasks: Collection[str] = WHOLE_TASKS) -> None:
        self.masks, self.whole_tasks = masks, whole_tasks

    @property
    def compares(self) -> bool:
        """Whether masks may be derived from the edits of a group."""
        return self.masks != "data"

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, in their order; requests of one group share source image and instruction."""
        scores: dict[int, Score] = {}
        for places in groups_of(requests):
            scores |= zip(places, self._group([requests[place] for place in places]), strict=True)
        return [scores[place] for place in range(len(requests))]

    def _group(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        sample, edits = requests[0].sample, [request.edit.convert("RGB") for request in requests]
        mask = find_mask(sample, edits, self.masks, self.whole_tasks)
        if isinstance(mask, str):
            return [Score(None, mask, applies=False)] * len(edits)
        views = [view_of(sample.source, edit, mask) for edit in edits]
        return [
            Score(None, view, applies=view != NO_OUTSIDE) if isinstance(view, str) else Score(value_of(psnr(view)))
            for view in views
        ]


def value_of(decibels: float) -> float:
    """The reward for a PSNR."""
    return min(1.0, max(0.0, (decibels - NOTHING) / (ALL - NOTHING)))
