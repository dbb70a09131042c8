"""Rewards and advantages of the groups of a step, and what happens if a judge gives no reward.

A remote judge is asked about a group as soon as it is made, while the next one is being made; an in-process judge
shares the machine with the editor, so it is asked in between. Rewards do not depend on which it is.

Letters: G edits of a group.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

from editr1.algorithms.base import Algorithm
from editr1.algorithms.by_region import region_advantages
from editr1.algorithms.mixing import Shares
from editr1.errors import UserError
from editr1.judges.base import Judge, JudgeRequest, Score, Weights, close, scores_of
from editr1.training.group import Group
from editr1.training.step_row import NOT_ASKED, NOT_FOR_IT, GroupMeasures, lacking, parts_reasons_of, reasons_of

POLL = 1.0  # seconds


class Rewarding:
    """`with Rewarding(judge, threads) as rewarding:` asks about every group that is started; `next` waits.

    Attributes:
        seconds: From the question about a group to its answer, one number per group.
    """

    def __init__(self, judge: Judge, threads: int) -> None:
        self.judge = judge
        self._pool = ThreadPoolExecutor(threads, "judge") if judge.remote else None
        self._pending: list[tuple[Group, Future[list[Score]]]] = []
        self._judged = 0  # groups that have their rewards
        self.seconds: list[float] = []

    def __enter__(self) -> Rewarding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            if error is not None:
                close(self.judge)  # else the process would wait for its threads, and they for the servers

    def start(self, group: Group) -> None:
        """Ask about the edits of a group."""
        if self._pool:
            self._pending.append((group, self._pool.submit(self._ask, group)))
        else:
            assign_rewards(group, self._ask(group))
            self._judged += 1

    def _ask(self, group: Group) -> list[Score]:
        start = time.perf_counter()
        scores = scores_of(self.judge, requests_of(group))
        self.seconds.append(time.perf_counter() - start)
        return scores

    @property
    def done(self) -> int:
        """The number of groups that the judge has answered for."""
        return self._judged + sum(scores.done() for _, scores in self._pending)

    def next(self, on_wait: Callable[[int], None] = lambda done: None) -> Group | None:
        """Wait for the rewards of the first group that is without them, in the order of `start`; None if all have.

        `on_wait` receives `done` once in `POLL` seconds.
        """
        if not self._pending:
            return None
        group, scores = self._pending[0]
        while wait([scores], POLL).not_done:
            on_wait(self.done)
        assign_rewards(group, scores.result())
        self._pending.pop(0)
        self._judged += 1
        return group


def requests_of(group: Group) -> list[JudgeRequest]:
    """What a judge is asked about a group."""
    return [JudgeRequest(group.sample, image) for image in group.rollout.images]


def assign_rewards(group: Group, scores: Sequence[Score]) -> None:
    """Give a group the scores of its edits, one each."""
    group.rewards = _values(scores)
    group.reasons = [score.reason for score in scores]
    group.prompts = sorted({score.prompt for score in scores if score.prompt})
    names = dict.fromkeys(name for score in scores for name in score.parts)
    absent = Score(None, NOT_ASKED)
    parts = {name: [score.parts.get(name, absent) for score in scores] for name in names}
    group.parts = {name: _values(some) for name, some in parts.items()}
    group.parts_reasons = {name: [_why_missing(score) for score in some] for name, some in parts.items()}


class Credited(Protocol):
    """A group with its rewards, which gets advantages; attributes as in `Group`."""

    @property
    def rewards(self) -> Tensor | None: ...

    @property
    def parts(self) -> dict[str, Tensor]: ...

    @property
    def task(self) -> str: ...

    advantages: Tensor | None
    regions: Tensor | None
    dropped: str | None


def assign_advantages(
    groups: Sequence[Credited], algorithm: Algorithm, weights: Weights | None = None, outside: Collection[str] = ()
) -> None:
    """Give every group its advantages, and the ones without signal the reason why they are dropped.

    Args:
        groups: Of one step, with rewards.
        algorithm: Gives the credit.
        weights: Of the rewards that are mixed; none if there is one reward.
        outside: Names of those that judge what is outside of masks, if regions have advantages of their own.
    """
    for some in [groups] if algorithm.needs_whole_step else [[group] for group in groups]:
        rewards = [group.rewards for group in some if group.rewards is not None]
        names = weights.usual if weights else {}
        parts = {name: [_part(group, name) for group in some] for name in names}
        shares = _shares(weights, some) if weights else None
        credit = algorithm.credit(rewards, parts, shares)
        for group, advantages, reason in zip(some, credit.advantages, credit.dropped, strict=True):
            group.advantages, group.dropped = advantages, reason
        if shares and outside:
            regions = region_advantages(credit.advantages, parts, shares, outside, algorithm.std)
            for group, own in zip(some, regions, strict=True):
                group.regions = own


class FailureWatch:
    """Counts the steps in a row in which too many edits are left without reward, or without one that is mixed into it.

    An edit that one of the mixed rewards does not apply to does not lack that.

    Args:
        share: Of a step's edits; more of them unscored make a failing step.
        steps: Failing steps in a row that are too many.
        optional: Names of the mixed rewards that may be missing.
    """

    def __init__(self, share: float, steps: int, optional: Collection[str] = ()) -> None:
        self.share, self.steps, self.optional = share, steps, optional
        self.failing = Counter[str]()

    def check(self, groups: Sequence[GroupMeasures]) -> None:
        """Count a step.

        Raises:
            UserError: It was one too many; says how many edits had no reward, and the commonest reason.
        """
        edits = sum(len(group.reasons) for group in groups)
        parts = parts_reasons_of(groups).items()
        required = {name: lacking(reasons) for name, reasons in parts if name not in self.optional}
        for name, reasons in {"": reasons_of(groups), **required}.items():
            self.failing[name] = self.failing[name] + 1 if sum(reasons.values()) > self.share * edits else 0
            if self.failing[name] >= self.steps:
                raise UserError(self._complaint(name, reasons, edits))

    def _complaint(self, name: str, reasons: Counter[str], edits: int) -> str:
        who = f"the reward {name!r} is missing" if name else "the judge gave no reward"
        remedy = f"mend it (or set rewards.{name}.optional)" if name and name != "judge" else "mend the judge"
        return (
            f"{who} for {sum(reasons.values())} of the last step's {edits} edits, and for more than {self.share:.0%} "
            f"in each of the last {self.failing[name]} steps: {reasons.most_common(1)[0][0]}; "
            f"{remedy}, then run the same command again to go on"
        )


def _shares(weights: Weights, groups: Sequence[Credited]) -> Shares:
    """The weight of each reward, one per group where it differs by task."""
    tasks = [group.task for group in groups]
    return {
        name: [weights.of(name, task) for task in tasks] if name in weights.by_task else weight
        for name, weight in weights.usual.items()
    }


def _part(group: Credited, name: str) -> Tensor:
    """One of the rewards that were mixed, [G]; NaN if the judge gave none of this name."""
    assert group.rewards is not None, "rewards come before advantages"
    return group.parts.get(name, torch.full_like(group.rewards, math.nan))


def _why_missing(score: Score) -> str | None:
    return score.reason if score.applies or score.reason is None else NOT_FOR_IT + score.reason


def _values(scores: Sequence[Score]) -> Tensor:
    return torch.tensor([math.nan if score.value is None else score.value for score in scores])
