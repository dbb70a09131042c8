"""Judging the groups of a step, and what happens where a judge gives no reward.

A remote judge is asked about a group as soon as it is made, while the next one is being made; an in-process judge
shares the machine with the editor, so it is asked in between. Rewards do not depend on which it was.

Letters: G edits of a group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from editr1.algorithms.advantages import filter_groups, normalise
from editr1.algorithms.mixing import mix
from editr1.config import AlgorithmConfig
from editr1.errors import UserError
from editr1.judges.base import Judge, JudgeRequest, Score, close
from editr1.training.group import Group


class Judging:
    """`with Judging(judge) as judging:` asks about every group that is started; all are rewarded at `finish`."""

    def __init__(self, judge: Judge, threads: int) -> None:
        self.judge = judge
        self._pool = ThreadPoolExecutor(threads, "judge") if judge.remote else None
        self._asked: list[tuple[Group, Future[list[Score]]]] = []

    def __enter__(self) -> Judging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                close(self.judge)  # else the process would wait for its threads, and they for the servers

    def start(self, group: Group) -> None:
        """Ask about the edits of a group."""
        if self._pool:
            self._asked.append((group, self._pool.submit(self.judge.score, requests_of(group))))
        else:
            reward(group, self.judge.score(requests_of(group)))

    def finish(self) -> None:
        """Wait until every group has its rewards."""
        for group, scores in self._asked:
            reward(group, scores.result())


def requests_of(group: Group) -> list[JudgeRequest]:
    """What a judge is asked about a group."""
    sample = group.sample
    return [
        JudgeRequest(sample.source, image, sample.instruction, sample.requirement, sample.task)
        for image in group.images
    ]


def reward(group: Group, scores: Sequence[Score]) -> None:
    """Lay the scores of a group into it."""
    scores = [score for _, score in zip(group.images, scores, strict=True)]
    group.rewards = _values(scores)
    group.reasons = [score.reason for score in scores]
    group.prompts = sorted({score.prompt for score in scores if score.prompt})
    names = dict.fromkeys(name for score in scores for name in score.parts)
    absent = Score(None, "not asked")
    group.parts = {name: _values([score.parts.get(name, absent) for score in scores]) for name in names}


def rate(groups: Sequence[Group], settings: AlgorithmConfig, weights: Mapping[str, float] | None = None) -> None:
    """Give every group its advantages, and the ones without signal the reason why they are dropped.

    Args:
        groups: of one step, with rewards.
        settings: how advantages are normalised, which groups are dropped.
        weights: of the rewards that are mixed, by name, each normalised on its own; none where there is one reward.
    """
    rewards = [group.rewards for group in groups if group.rewards is not None]
    if weights:
        absent = [torch.full_like(reward, math.nan) for reward in rewards]
        parts = {
            name: [group.parts.get(name, nothing) for group, nothing in zip(groups, absent, strict=True)]
            for name in weights
        }
        advantages = mix(parts, weights, settings.std)
    else:
        advantages = normalise(rewards, settings.std)
    dropped = filter_groups(rewards, settings.filter, settings.tau_mu, settings.tau_sigma)
    for group, advantage, reason in zip(groups, advantages, dropped, strict=True):
        group.advantages, group.dropped = advantage, reason


class FailureWatch:
    """Counts the steps in a row in which too many edits are left without reward.

    Args:
        share: of a step's edits; more of them unscored make a failing step.
        steps: so many failing steps in a row are too many.
    """

    def __init__(self, share: float, steps: int) -> None:
        self.share, self.steps, self.failing = share, steps, 0

    def check(self, groups: Sequence[Group]) -> None:
        """Count a step.

        Raises:
            UserError: it was one too many; says how many edits had no reward, and the commonest reason.
        """
        reasons = Counter(reason for group in groups for reason in group.reasons if reason is not None)
        edits = sum(len(group.images) for group in groups)
        self.failing = self.failing + 1 if sum(reasons.values()) > self.share * edits else 0
        if self.failing >= self.steps:
            raise UserError(
                f"the judge gave no reward for {sum(reasons.values())} of the last step's {edits} edits, and for more "
                f"than {self.share:.0%} in each of the last {self.failing} steps: {reasons.most_common(1)[0][0]}; "
                "mend the judge, then run the same command again to go on"
            )


def _values(scores: Sequence[Score]) -> torch.Tensor:
    return torch.tensor([math.nan if score.value is None else score.value for score in scores])
