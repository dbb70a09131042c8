"""A second judge that watches the rewards of the first: it scores some edits, and nothing is trained on its scores.

An editor can learn what its judge likes and its users do not. The two scores then part: the reward rises, and that of
another judge falls. `alarms.py` tells it.
"""

from __future__ import annotations

import logging

from editr1.errors import printable
from editr1.judges.base import Judge, JudgeRequest, complete_scores
from editr1.training.group import Group
from editr1.training.step_row import Watch

NAME = "judge"  # of its scores among what is watched
_log = logging.getLogger(__name__)


def watch_by(judge: Judge, every: int) -> Watch:
    """Scores of each `every`-th edit of a group, by its place in the group; an edit without a score is left out."""

    def watch(group: Group) -> dict[str, list[float]]:
        places = range(group.first, group.first + len(group.rollout.images))
        edits = [edit for place, edit in zip(places, group.rollout.images, strict=True) if place % every == 0]
        scores = complete_scores(judge, [JudgeRequest(group.sample, edit) for edit in edits]) if edits else []
        for score in scores:
            if score.value is None:
                _log.warning(
                    "watch: no score of an edit of item %s: %s", group.sample.key, printable(str(score.reason))
                )
                break  # one line a group
        return {NAME: [score.value for score in scores if score.value is not None]}

    return watch
