"""The edits of a step: which items are drawn, who makes their edits, and when the judge is asked about them.

A run visits its items in epochs. The place in them moves on when a step is done, and solved items may be banned: both
belong to the state of a run.

A step is one round of groups. With `rollout.most_groups`, further rounds replace the groups that the filter drops, as
DAPO (arXiv 2503.14476) does: as many as are missing, so that none is made in vain. Every group has its place in the
step, which its noise depends on; the rewards of a round decide on the next, on all ranks alike. With `rollout.scouts`,
a round has two parts: scouts of all of its groups (`scouting.py`), then the edits that are chosen by them. Both parts
share the encodings of prompts and sources (`editors/encoding_once.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from statistics import fmean
from typing import Any

from editr1.config.settings import Config, RolloutConfig
from editr1.data.samples import EditDataset, EditSample, GroupSampler
from editr1.editors.editor import Editor
from editr1.editors.encoding_once import Encodings
from editr1.judges.base import Judge, Weights, compares, weights_of
from editr1.training.distributed import World
from editr1.training.exchange import Judged, Rewarded, cut, gather_rewards
from editr1.training.group import Group
from editr1.training.keeping import GroupFolder
from editr1.training.log import StepProgress, Stopwatch
from editr1.training.rewarding import Rewarding, assign_advantages
from editr1.training.scouting import extremes, scout_numbers
from editr1.training.sharing import Share, share_edits, widened

Make = Callable[[EditSample, int, Share, Sequence[int] | None, int | None], Group]
"""Makes the edits of a share by the sampling policy, as a part of the group of that index: `Trainer.rollout`."""


class Collector:
    """Collects the groups of a step.

    Args:
        config: The run.
        judge: Gives the rewards.
        dataset: The items.
        world: The ranks that share out the edits.
        editor: Makes the edits; if its weights are sharded, all ranks make equally many calls of the pipeline.
        folder: Keeps the groups on the disk; None keeps none.

    Attributes:
        weights: Of the rewards that are mixed, by name; None if there is one reward.
        step: Steps done.
        place: In the epochs, of the next step.
        banned: Items that are not drawn any more.
        shares: The edits that each worker makes, of all rounds of the step that have begun.
        edits: How many this rank makes in these, scouts included.
    """

    def __init__(
        self,
        config: Config,
        judge: Judge,
        dataset: EditDataset,
        world: World,
        editor: Editor,
        folder: GroupFolder | None = None,
    ) -> None:
        self.config, self.judge, self.dataset, self.world = config, judge, dataset, world
        self.weights: Weights | None = weights_of(judge)
        rollout = config.rollout
        self.sampler = GroupSampler(len(dataset), rollout.groups_per_step, config.seed)
        self.step, self.place, self.banned, self._folder = 0, 0, set[int](), folder
        self._equal = editor.is_sharded
        once = rollout.scouts is not None and not editor.is_sharded  # a rank alone may not leave out a call then
        self._encoding = Encodings(editor.pipe).kept if once else nullcontext
        self.shares, scouts = self._share(0, rollout.groups_per_step)
        self.edits = sum(share.count for some in (self.shares, scouts) for share in some[world.worker])

    @property
    def all_solved(self) -> bool:
        """Whether no item is left to draw."""
        return len(self.banned) >= len(self.dataset)

    def tell_end(self, progress: StepProgress) -> None:
        """Say it if no item is left to draw."""
        if self.all_solved:
            progress.warn(
                f"Training is done: all {len(self.dataset)} items are solved, and data.ban_solved leaves none to draw. "
                "To go on, train in another out: from these weights (adapter.init) on more or harder items, or with a "
                "higher algorithm.tau_mu."
            )

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"place": self.place, "banned": sorted(self.banned)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        first = state["step"] * self.config.rollout.groups_per_step  # of runs that are older than bans
        self.place = first if state["place"] is None else state["place"]
        self.step, self.banned = state["step"], {*state["banned"]}

    def collect(
        self, make: Make, clock: Stopwatch, progress: StepProgress, first: int = 0, count: int | None = None
    ) -> Generator[Group]:
        """The edits that this rank makes in a round of a step, in their order, as they get their rewards.

        A judge in this process is asked about a group as soon as it is made; a remote one works on all of them at once,
        so none is waited for before the last one is made.

        Args:
            make: Makes edits.
            clock: Times the step.
            progress: Shows it.
            first: Groups of the step's earlier rounds; 0 begins a step.
            count: Groups of this round; None for `rollout.groups_per_step`.
        """
        own, scouts = self._begin(first, count or self.config.rollout.groups_per_step)
        progress.edits = self.edits

        def made(share: Share) -> Group:
            return make(self._item(share), share.index, share, self._places.get(share.index), None)

        with self._encoding():
            if scouts:
                self._scout(make, clock, progress, scouts)
            groups = self._rewarded(made, clock, progress, own, self.config.rollout.group_size)
            yield from groups if self._folder is None else self._folder.kept(groups, self.step + 1)

    def move_on(self, judged: Sequence[Judged]) -> dict[str, float | None]:
        """The step with these groups is done, and solved items are banned; what its row says of items and judge."""
        self.step, self.place, numbers = self.step + 1, self._next, dict[str, float | None]()
        if self.config.data.ban_solved:
            pairs = zip(self._items, judged, strict=True)
            self.banned |= {item for item, each in pairs if self.config.algorithm.solves(each.rewards)}
            numbers["banned"] = len(self.banned)
        if self._scouts:
            numbers |= scout_numbers(self._scouts, self._places, judged)
        return {**numbers, "judge_latency": fmean(self._seconds) if self._seconds else None}

    def _begin(self, first: int, count: int) -> tuple[list[Share], list[Share]]:
        """Draw the items of a round; the edits and the scouts that this rank makes of it."""
        if first == 0:
            self._items, self._next, self._seconds = list[int](), self.place, list[float]()
            self._scouts, self._places = list[Rewarded](), dict[int, list[int]]()
            self.shares, self.edits, self._made = [[] for _ in self.shares], 0, 0
        items, self._next = self.sampler.draw(self._next, self.banned, count)
        self._items += items
        shares, scouts = self._share(first, count)
        self.shares = [done + more for done, more in zip(self.shares, shares, strict=True)]
        own = shares[self.world.worker], scouts[self.world.worker]
        self.edits += sum(share.count for some in own for share in some)
        return own

    def _share(self, first: int, count: int) -> tuple[list[list[Share]], list[list[Share]]]:
        """The edits and the scouts of `count` groups that each worker makes, from group `first` of the step on."""
        rollout, workers = self.config.rollout, self.world.workers

        def shares(size: int) -> list[list[Share]]:
            every = share_edits(count, size, workers, whole=self._is_whole, equal=self._equal)
            return [[replace(share, index=first + share.index) for share in own] for own in every]

        return shares(rollout.group_size), shares(rollout.scouts) if rollout.scouts else [[]] * workers

    @property
    def _is_whole(self) -> bool:
        """Whether no group may be split: a judge compares its edits, or a mask is of all of them."""
        kept = self.config.preservation
        return compares(self.judge) or (kept is not None and kept.masks != "data")

    def _scout(self, make: Make, clock: Stopwatch, progress: StepProgress, shares: Sequence[Share]) -> None:
        """Make the scouts of a round; choose those that are made again."""
        rollout = self.config.rollout
        assert rollout.scouts is not None, "there are shares of them"
        every = range(rollout.scouts)

        def made(share: Share) -> Group:
            return make(self._item(share), share.index, share, every, rollout.scout_steps)

        groups = [*self._rewarded(made, clock, progress, shares, rollout.scouts)]
        with clock("exchange") if self.world.size > 1 else nullcontext():
            scouts = gather_rewards(self.world, groups)
        for each in scouts:
            assign_advantages([each], self.config.algorithm, self.weights)
            assert each.advantages is not None, "they were just assigned"
            self._places[each.index] = extremes(each.advantages, rollout.group_size)
        self._scouts += scouts

    def _rewarded(
        self,
        make: Callable[[Share], Group],
        clock: Stopwatch,
        progress: StepProgress,
        shares: Sequence[Share],
        size: int,
    ) -> Generator[Group]:
        """The edits of these shares of groups of `size` edits, as they get their rewards."""
        before = self._made
        with Rewarding(self.judge, len(shares) or 1) as rewarding:
            for share in shares:
                with clock("rollout"):
                    made = make(widened(share, size))
                if share.count == 0 or not self.world.speaks:
                    continue  # a call for the sake of other ranks
                with clock("judge"):
                    # a judge in this process is asked about all of them: its batch is that of one process
                    group = cut(made, share) if self.judge.remote else made
                    rewarding.start(group)
                self._made += share.count
                progress.collects(self._made, before + size * rewarding.done)
                if not self.judge.remote:
                    yield cut(group, share)
            while True:
                with clock("judge"):
                    answered = rewarding.next(lambda done: progress.waits(before + size * done))
                if answered is None:
                    break
                yield answered
        self._seconds += rewarding.seconds

    def _item(self, share: Share) -> EditSample:
        return self.dataset[self._items[share.index]]


def count_missing(judged: Sequence[Judged], rollout: RolloutConfig) -> int:
    """How many groups are drawn in place of those that are dropped so far."""
    if rollout.most_groups is None:
        return 0
    kept = sum(each.dropped is None for each in judged)
    return max(0, min(rollout.groups_per_step - kept, rollout.most_groups - len(judged)))
