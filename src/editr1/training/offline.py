"""Groups whose edits are on the disk, in place of those that a sampler makes and a judge rewards.

A step draws its items as an online one does, in epochs that follow from the run's seed. The editor's own pipeline
encodes prompt, source and edits (`editors/stored.py`); no denoiser call is made for it. The first edit that a rank
reads in a session must come back from its way to the VAE, so that an editor that encodes sources in another way is
refused.

The better edit of a preference has the reward 1, the worse 0, from which any algorithm takes its credit. These are no
rewards of a judge, so the row of a step does not tell them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Sequence
from math import prod
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from PIL.Image import Image

from editr1.config.settings import Config
from editr1.data.samples import EditDataset
from editr1.editors.editor import Editor, Rollout
from editr1.editors.stored import as_edit, check_latents, decode, encode, prepare
from editr1.errors import UserError
from editr1.judges.base import Judge, weights_of
from editr1.training.collecting import Collector, Make
from editr1.training.distributed import World
from editr1.training.group import Group
from editr1.training.groups import GroupDataset
from editr1.training.keeping import GroupFolder
from editr1.training.log import StepProgress, Stopwatch
from editr1.training.run_files import GROUPS


@runtime_checkable
class EditedDataset(EditDataset, Protocol):
    """Items with stored edits."""

    def edits(self, index: int) -> Sequence[Image]:
        """The edits of an item, the better first."""
        ...


class StoredCollector(Collector):
    """Reads the groups of a step. Nothing else differs from an online run; arguments as of `Collector`.

    The judge, if there is one, is not asked.
    """

    def __init__(self, config: Config, judge: Judge, dataset: EditDataset, world: World, editor: Editor) -> None:
        super().__init__(config, judge, dataset, world, editor)
        self._editor = editor

    def collect(
        self, make: Make, clock: Stopwatch, progress: StepProgress, first: int = 0, count: int | None = None
    ) -> Generator[Group]:
        """The groups that this rank reads in a step, in their order; arguments as of `Collector.collect`."""
        own, _ = self._begin(first, count or self.config.rollout.groups_per_step)
        progress.edits, done = self.edits, 0
        for share in own:
            with clock("read"):
                group = self._read(share.index)
            if share.count and self.world.speaks:
                done += share.count
                progress.collects(done, done)
                yield group

    @property
    def _is_whole(self) -> bool:
        """An item is read whole."""
        return True

    @abstractmethod
    def _read(self, index: int) -> Group:
        """Group `index` of the step."""


class EditCollector(StoredCollector):
    """Reads items with edits, of which the first is the best."""

    def __init__(self, config: Config, judge: Judge, dataset: EditDataset, world: World, editor: Editor) -> None:
        if not isinstance(dataset, EditedDataset):
            raise UserError(f'data.kind "{config.data.kind}": {type(dataset).__name__} has no stored edits')
        super().__init__(config, judge, dataset, world, editor)
        self.weights = None  # there is one reward
        self._stored, self._is_checked = dataset, False

    def _read(self, index: int) -> Group:
        item, rollout, editor = self._items[index], self.config.rollout, self._editor
        sample, pictures = self.dataset[item], self._stored.edits(item)
        if not self._is_checked:
            check_latents(editor, sample, pictures[0])
            self._is_checked = True
        conditioning, levels = prepare(editor, sample, rollout.steps, rollout.scheduler)
        latents = torch.cat([encode(editor, sample, picture) for picture in pictures])  # G N C
        images = [as_edit(editor, sample, picture) for picture in pictures]
        made = Rollout(conditioning, latents, images, levels, calls=[])
        return Group(index, sample, made, torch.linspace(1, 0, len(pictures)), [None] * len(pictures), is_judged=False)


class GroupCollector(StoredCollector):
    """Reads groups that another run made and judged: latents, levels and rewards are theirs, the rest is made anew."""

    def __init__(self, config: Config, judge: Judge, dataset: EditDataset, world: World, editor: Editor) -> None:
        if not isinstance(dataset, GroupDataset):
            raise UserError(f'data.kind "groups": {type(dataset).__name__} has no groups')
        super().__init__(config, judge, dataset, world, editor)
        self._groups, self.weights = dataset, dataset.weights
        if (size := dataset.sizes[0]) != config.rollout.group_size:
            raise UserError(f"{dataset.folder} holds groups of {size} edits; set rollout.group_size={size}")

    def _read(self, index: int) -> Group:
        sample, group = self.dataset[self._items[index]], self._groups.group(self._items[index])
        rollout, algorithm = self.config.rollout, self.config.algorithm
        conditioning, _ = prepare(self._editor, sample, rollout.steps, rollout.scheduler)
        own, there = (conditioning.shape[0], prod(conditioning.shape[1:])), (*group.latents.shape[1:],)
        if own != there:
            raise UserError(
                f"{self._groups.folder}: edits of item {sample.key!r} have latents of {there}, this editor's {own}; "
                "set editor.path and editor.pixels as in the run that made them"
            )
        if fault := algorithm.fault(len(group.levels)):
            raise UserError(f"{self._groups.folder}: {fault}")
        latents = group.latents.to(self._editor.pipe._execution_device)
        images = decode(self._editor, sample, conditioning, latents)
        made = Rollout(conditioning, latents, images, group.levels.to(latents.device), calls=[])
        told = (group.rewards, group.reasons, group.parts, group.parts_reasons)
        return Group(index, sample, made, *told, is_judged=False)


def collector_of(
    config: Config, judge: Judge, dataset: EditDataset, world: World, editor: Editor, out: Path
) -> Collector:
    """What gives a run with the folder `out` its groups."""
    if config.data.is_stored:
        kind = GroupCollector if config.data.kind == "groups" else EditCollector
        return kind(config, judge, dataset, world, editor)
    folder = GroupFolder(out / GROUPS, weights_of(judge)) if config.rollout.save_groups else None
    return Collector(config, judge, dataset, world, editor, folder)
