"""Keeping the groups of a run on the disk, to train on them again (`rollout.save_groups`); `groups.py` reads them.

A file is written beside its place and renamed, so a step that is made again after a stop replaces its files by equal
ones.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from PIL.Image import Image
from safetensors.torch import save
from torch import Tensor

from editr1.data.pictures import png
from editr1.files import write_file
from editr1.judges.base import Weights
from editr1.training.group import Group
from editr1.training.groups import PICTURES, Facts


class GroupFolder:
    """Writes the groups of a run; every rank writes the edits that it made.

    Args:
        folder: Where.
        weights: Of the rewards that are mixed.
    """

    def __init__(self, folder: Path, weights: Weights | None) -> None:
        self.folder, self.weights = folder, weights

    def kept(self, groups: Generator[Group], step: int) -> Generator[Group]:
        """The groups of a step, each when it is on the disk."""
        with closing(groups):
            for group in groups:
                self._write(group, step)
                yield group

    def _write(self, group: Group, step: int) -> None:
        assert group.rewards is not None, "a group has its rewards when it is kept"
        sample, rollout = group.sample, group.rollout
        facts = Facts(
            key=sample.key,
            instruction=sample.instruction,
            requirement=sample.requirement,
            task=sample.task,
            source=self.picture(sample.source),
            references=[self.picture(each) for each in sample.references],
            rewards=_as_json(group.rewards),
            reasons=group.reasons,
            parts={name: _as_json(values) for name, values in group.parts.items()},
            parts_reasons=group.parts_reasons,
            usual=None if self.weights is None else dict(self.weights.usual),
            by_task={} if self.weights is None else {name: dict(own) for name, own in self.weights.by_task.items()},
        )
        tensors = {"latents": rollout.latents.cpu().contiguous(), "levels": rollout.levels.cpu()}
        name = f"step_{step:06d}-{group.index:03d}-{group.first:03d}.safetensors"
        write_file(self.folder / name, save(tensors, metadata={"group": facts.model_dump_json()}))

    def picture(self, picture: Image) -> str:
        """Write a source or reference, unless it is there; its path in the folder."""
        content = png(picture)
        name = f"{PICTURES}/{hashlib.sha256(content).hexdigest()[:32]}.png"
        if not (self.folder / name).exists():
            own = self.folder / f"{name}.{uuid.uuid4().hex}"  # ranks that share a group write its source at one time
            write_file(own, content)
            own.replace(self.folder / name)
        return name


def _as_json(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
