"""The edits of a step: which items are drawn, who makes their edits, and when the judge is asked about them.

A run visits its items in epochs. The place in them moves on when a step is done, and solved items may be banned: both
belong to the state of a run.

A step is one round of groups. With `rollout.most_groups`, further rounds replace the groups that the filter drops, as
DAPO (arXiv 2503.14476) does: as many as are missing, so that none is made in vain. Every group has its place in the
step, which its noise depends on; the rewards of a round decide on the next, on all ranks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from editr1.config.settings import Config, RolloutConfig
from editr1.data.samples import EditDataset, EditSample, GroupSampler
from editr1.judges.base import Judge, compares
from editr1.training.distributed import World
from editr1.training.exchange import Judged, cut
from editr1.training.group import Group
from editr1.training.log import StepProgress, Stopwatch
from editr1.training.rewarding import Rewarding
from editr1.training.sharing import Share, share_edits, widened

Make = Callable[[EditSample, int, Share], Group]
"""Makes the edits of a share by the sampling policy, as a part of the group of that index."""


class Collector:
    """Collects the groups of a step.

    Args:
        config: The run.
        judge: Gives the rewards.
        dataset: The items.
        world: The ranks that share out the edits.
        equal: Whether all ranks must make equally many calls of the pipeline.

    Attributes:
        place: In the epochs, of the next step.
        banned: Items that are not drawn any more.
        shares: The edits that each worker makes, of all rounds of the step.
    """

    def __init__(self, config: Config, judge: Judge, dataset: EditDataset, world: World, equal: bool) -> None:
        self.config, self.judge, self.dataset, self.world = config, judge, dataset, world
        self.sampler = GroupSampler(len(dataset), config.rollout.groups_per_step, config.seed)
        self.place, self.banned = 0, set[int]()
        self._equal = equal
        self.shares = self._share(0, config.rollout.groups_per_step)

    @property
    def edits(self) -> int:
        """Edits of the step that this rank makes, in the rounds that have begun."""
        return sum(share.count for share in self.shares[self.world.worker])

    @property
    def latency(self) -> float | None:
        """Mean seconds from the step's questions about a group to the answer; None if no group was asked about."""
        return fmean(self._seconds) if self._seconds else None

    def collect(
        self, make: Make, clock: Stopwatch, progress: StepProgress, first: int = 0, count: int | None = None
    ) -> list[Group]:
        """The edits that this rank makes in a round of a step, with their rewards.

        Args:
            make: Makes edits.
            clock: Times the step.
            progress: Shows it.
            first: Groups of the step's earlier rounds; 0 begins a step.
            count: Groups of this round; None for `rollout.groups_per_step`.
        """
        groups, size = list[Group](), self.config.rollout.group_size
        count = count or self.config.rollout.groups_per_step
        own = self._begin(first, count)
        before, progress.edits = self.edits - sum(share.count for share in own), self.edits
        with Rewarding(self.judge, count) as rewarding:
            for share in own:
                with clock("rollout"):
                    made = make(self.dataset[self._items[share.index]], share.index, widened(share, size))
                if share.count == 0 or not self.world.speaks:
                    continue  # a call for the sake of other ranks
                with clock("judge"):
                    # a judge in this process is asked about all of them: its batch is that of one process
                    group = cut(made, share) if self.judge.remote else made
                    rewarding.start(group)
                groups.append(cut(group, share))
                done = sum(len(each.rollout.images) for each in groups)
                progress.collects(before + done, before + size * rewarding.done)
            with clock("judge"):
                rewarding.finish(on_wait=lambda done: progress.waits(before + size * done))
        self._seconds += rewarding.seconds
        return groups

    def _begin(self, first: int, count: int) -> list[Share]:
        """Draw the items of a round; what this rank makes of it."""
        if first == 0:
            self._items, self._next, self._seconds = list[int](), self.place, list[float]()
            self.shares = [[] for _ in self.shares]
        items, self._next = self.sampler.draw(self._next, self.banned, count)
        self._items += items
        shares = self._share(first, count)
        self.shares = [done + more for done, more in zip(self.shares, shares, strict=True)]
        return shares[self.world.worker]

    def _share(self, first: int, count: int) -> list[list[Share]]:
        """The edits of `count` groups that each worker makes, from group `first` of the step on."""
        size, whole = self.config.rollout.group_size, compares(self.judge)
        shares = share_edits(count, size, self.world.workers, whole=whole, equal=self._equal)
        return [[replace(share, index=first + share.index) for share in own] for own in shares]

    def move_on(self, judged: Sequence[Judged]) -> None:
        """The step with these groups is done; its solved items are drawn never again, if the config says so."""
        self.place = self._next
        if self.config.data.ban_solved:
            pairs = zip(self._items, judged, strict=True)
            self.banned |= {item for item, each in pairs if self.config.algorithm.solves(each.rewards)}


def count_missing(judged: Sequence[Judged], rollout: RolloutConfig) -> int:
    """How many groups are drawn in place of those that are dropped so far."""
    if rollout.most_groups is None:
        return 0
    kept = sum(each.dropped is None for each in judged)
    return max(0, min(rollout.groups_per_step - kept, rollout.most_groups - len(judged)))
