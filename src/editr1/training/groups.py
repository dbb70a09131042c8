"""Groups on the disk, which another run made and judged: what `keeping.py` wrote, to train on again.

A file for the edits of a group that one rank made: clean latents and noise levels as safetensors, and in the metadata,
as JSON, the item, the rewards with their parts, and the weights by which these were mixed. Source pictures are PNG
files, named by their content. Prompts and sources are encoded anew when a group is read; a sampler's path is not kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from editr1.data.pictures import open_picture, picture_file
from editr1.data.samples import EditSample
from editr1.errors import UserError, first_line, first_problem
from editr1.judges.base import Weights

NAME = re.compile(r"step_(\d{6,})-(\d{3,})-(\d{3,})\.safetensors")
PICTURES = "pictures"


class Facts(BaseModel):
    """What the metadata of a file say: the item, its edits' rewards as in `Group`, the weights of those mixed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str
    instruction: str
    requirement: str
    task: str
    source: str
    references: list[str]
    rewards: list[float | None]
    reasons: list[str | None]
    parts: dict[str, list[float | None]]
    parts_reasons: dict[str, list[str | None]]
    usual: dict[str, float] | None
    by_task: dict[str, dict[str, float]]


@dataclass(frozen=True)
class StoredGroup:
    """A group as it was; its fields are those of `Group` and of its rollout."""

    latents: Tensor
    levels: Tensor
    rewards: Tensor
    reasons: list[str | None]
    parts: dict[str, Tensor]
    parts_reasons: dict[str, list[str | None]]


class GroupDataset:
    """The groups in a folder, in the order in which they were made; an item is what was edited.

    Raises:
        UserError: There are none, one is damaged, or they have different numbers of edits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found: dict[tuple[int, int], dict[int, Path]] = {}
        for path in sorted(folder.glob("step_*.safetensors")):
            if match := NAME.fullmatch(path.name):
                step, index, first = map(int, match.groups())
                found.setdefault((step, index), {})[first] = path
        if not found:
            raise UserError(
                f"{folder} holds no groups; name the folder `groups` of a run with rollout.save_groups=true"
            )
        self._groups = [[*_parts(found[place])] for place in sorted(found)]
        self.sizes = [sum(len(facts.rewards) for _, facts in parts) for parts in self._groups]
        if len({*self.sizes}) > 1:
            raise UserError(
                f"{folder} holds groups of {min(self.sizes)} to {max(self.sizes)} edits; name those of one run"
            )
        facts = self._groups[0][0][1]
        self.weights = None if facts.usual is None else Weights(facts.usual, facts.by_task)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> EditSample:
        path, facts = self._groups[index][0]
        source, *references = (
            open_picture(picture_file(self.folder, name, str(path)), str(path))
            for name in (facts.source, *facts.references)
        )
        return EditSample(facts.key, source, facts.instruction, facts.requirement, facts.task, tuple(references))

    def group(self, index: int) -> StoredGroup:
        """The edits of an item with their rewards."""
        files = [_read(path) for path, _ in self._groups[index]]
        every = [facts for _, facts in self._groups[index]]
        names = dict.fromkeys(name for facts in every for name in facts.parts)
        return StoredGroup(
            torch.cat([tensors["latents"] for tensors in files]),
            files[0]["levels"],
            torch.cat([_as_tensor(facts.rewards) for facts in every]),
            [reason for facts in every for reason in facts.reasons],
            {name: torch.cat([_part(facts, name) for facts in every]) for name in names},
            {name: [r for facts in every for r in facts.parts_reasons.get(name, facts.reasons)] for name in names},
        )


def _parts(files: dict[int, Path]) -> Iterator[tuple[Path, Facts]]:
    """The files of a group, one after another, without those of another number of ranks, whose edits others hold."""
    end = 0
    for first in sorted(files):
        if first == end:
            facts = _facts(files[first])
            end += len(facts.rewards)
            yield files[first], facts
    if end == 0:
        raise UserError(f"{files[min(files)]}: the first edits of this group are not there; remove the file")


def _facts(path: Path) -> Facts:
    try:
        with safe_open(path, "pt") as file:
            facts = Facts.model_validate_json(file.metadata()["group"])
            count = file.get_slice("latents").get_shape()[0]
    except ValidationError as error:
        raise _damage(path, first_problem(error)) from error
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise _damage(path, first_line(error)) from error
    if len(facts.rewards) != count:
        raise _damage(path, f"{len(facts.rewards)} rewards of {count} edits")
    return facts


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in ("latents", "levels")}
    except (OSError, SafetensorError) as error:
        raise _damage(path, first_line(error)) from error


def _damage(path: Path, why: str) -> UserError:
    return UserError(f"{path} is no group, or damaged ({why}); remove it")


def _as_tensor(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values])


def _part(facts: Facts, name: str) -> Tensor:
    """One of the rewards that were mixed; NaN for edits that were not asked about."""
    return _as_tensor(facts.parts.get(name, [None] * len(facts.rewards)))
