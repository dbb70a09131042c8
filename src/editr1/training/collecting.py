"""The edits of a step: which items are drawn, who makes their edits, and when the judge is asked about them.

A run visits its items in epochs. The place in them moves on when a step is done, and solved items may be banned: both
belong to the state of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from editr1.config.settings import Config
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
        shares: The edits of a step that each worker makes.
        latency: Mean seconds of the last step's questions to the judge; None if it was not asked.
    """

    def __init__(self, config: Config, judge: Judge, dataset: EditDataset, world: World, equal: bool) -> None:
        self.config, self.judge, self.dataset, self.world = config, judge, dataset, world
        rollout = config.rollout
        self.sampler = GroupSampler(len(dataset), rollout.groups_per_step, config.seed)
        self.place, self.banned = 0, set[int]()
        self.latency: float | None = None
        sizes = rollout.groups_per_step, rollout.group_size
        self.shares = share_edits(*sizes, world.workers, whole=compares(judge), equal=equal)

    @property
    def edits(self) -> int:
        """Edits of a step that this rank makes."""
        return sum(share.count for share in self.shares[self.world.worker])

    def collect(self, make: Make, clock: Stopwatch, progress: StepProgress) -> list[Group]:
        """The edits of a step that this rank makes, with their rewards."""
        groups, size = list[Group](), self.config.rollout.group_size
        self._items, self._next = self.sampler.draw(self.place, self.banned)
        with Rewarding(self.judge, self.config.rollout.groups_per_step) as rewarding:
            for share in self.shares[self.world.worker]:
                with clock("rollout"):
                    made = make(self.dataset[self._items[share.index]], share.index, widened(share, size))
                if share.count == 0 or not self.world.speaks:
                    continue  # a call for the sake of other ranks
                with clock("judge"):
                    # a judge in this process is asked about all of them: its batch is that of one process
                    group = cut(made, share) if self.judge.remote else made
                    rewarding.start(group)
                groups.append(cut(group, share))
                progress.collects(sum(len(each.rollout.images) for each in groups), size * rewarding.done)
            with clock("judge"):
                rewarding.finish(on_wait=lambda done: progress.waits(size * done))
        self.latency = rewarding.latency
        return groups

    def move_on(self, judged: Sequence[Judged]) -> None:
        """The step with these groups is done; its solved items are drawn never again, if the config says so."""
        self.place = self._next
        if self.config.data.ban_solved:
            pairs = zip(self._items, judged, strict=True)
            self.banned |= {item for item, each in pairs if self.config.algorithm.solves(each.rewards)}
