"""What ranks send each other in a step: rewards and measures as JSON; latents and conditioning as tensors.

Nothing is pickled: a nest of tensors travels as its layout in JSON, followed by the bytes of its tensors.

Letters: G edits of a group, N tokens, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from editr1.algorithms.base import Edits
from editr1.editors.editor import Rollout
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from editr1.training.distributed import World
from editr1.training.group import Group
from editr1.training.sharing import RowShare, Share
from editr1.training.step_row import GroupMeasures, Watch, joined, measure

Find = Callable[[Group], Tensor | None]
"""Which tokens of a group its mask has a part in, and which must stay, [2, N]; None if it has no mask."""


@dataclass(kw_only=True)
class Rewarded:
    """The rewards of a group, whoever made its edits; attributes as in `Group`."""

    index: int
    task: str
    rewards: Tensor
    parts: dict[str, Tensor]
    advantages: Tensor | None = None
    regions: Tensor | None = None
    dropped: str | None = None


@dataclass(kw_only=True)
class Judged(Rewarded):
    """What every rank knows of a group of the step.

    Attributes:
        measures: Its numbers.
        levels: Noise levels that its sampler visited, [S].
        transitions: Numbers of its sampler's steps, [S, 3]; None without noise.
    """

    measures: GroupMeasures
    levels: Tensor
    transitions: Tensor | None = None

    @property
    def edits(self) -> Edits:
        """Its edits without their latents, which only the ranks that made them have."""
        assert self.advantages is not None, "advantages come before the loss"
        empty = torch.empty(len(self.rewards), 0, 0)
        return Edits(empty, self.advantages, self.levels, transitions=self.transitions, regions=self.regions)


@dataclass(frozen=True)
class Portion:
    """Rows of a kept group that this rank trains on.

    Attributes:
        index: The group's place in its step.
        conditioning: Arguments of the denoiser.
        edits: All edits of the group.
        share: Which rows of them.
    """

    index: int
    conditioning: Conditioning
    edits: Edits
    share: RowShare


def gather_groups(world: World, groups: Sequence[Group], watch: Watch | None = None) -> list[Judged]:
    """All groups of the step, in their order, from the edits that each rank made."""
    facts = [{**_rewards(group), "measures": asdict(measure(group, watch)), **_path(group.rollout)} for group in groups]
    return [
        Judged(
            **_joined(parts),
            measures=joined([GroupMeasures(**part["measures"]) for part in parts]),
            levels=torch.tensor(parts[0]["levels"]),
            transitions=None if (numbers := parts[0]["transitions"]) is None else torch.tensor(numbers),
        )
        for parts in _by_group(world, facts, "the rewards of a step")
    ]


def gather_rewards(world: World, groups: Sequence[Group]) -> list[Rewarded]:
    """As `gather_groups`, the rewards alone."""
    facts = [_rewards(group) for group in groups]
    return [Rewarded(**_joined(parts)) for parts in _by_group(world, facts, "the rewards of scouts")]


def _by_group(world: World, own: list[dict[str, Any]], place: str) -> list[list[dict[str, Any]]]:
    """The parts of each group of the step, in their order, from those that each rank made."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for part in sorted((part for parts in world.gather(own, place) for part in parts), key=_place):
        groups.setdefault(part["index"], []).append(part)
    return [groups[index] for index in sorted(groups)]


def _rewards(group: Group) -> dict[str, Any]:
    """What the others learn of the rewards of edits that this rank made, as JSON."""
    assert group.rewards is not None, "rewards come before they are told"
    return {
        "index": group.index,
        "first": group.first,
        "task": group.task,
        "rewards": group.rewards.tolist(),
        "parts": {name: values.tolist() for name, values in group.parts.items()},
    }


def _path(rollout: Rollout) -> dict[str, Any]:
    """What the others learn of the steps of a sampler, as JSON."""
    transitions = rollout.transitions
    return {"levels": rollout.levels.tolist(), "transitions": None if transitions is None else transitions.tolist()}


def _place(part: Mapping[str, Any]) -> tuple[int, int]:
    return part["index"], part["first"]


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rewards of one group from its parts; a mixed reward that nobody gave for a part is NaN there."""
    names = dict.fromkeys(name for part in parts for name in part["parts"])
    unknown = [[float("nan")] * len(part["rewards"]) for part in parts]
    mixed = {
        name: [value for part, none in zip(parts, unknown, strict=True) for value in part["parts"].get(name, none)]
        for name in names
    }
    return {
        "index": parts[0]["index"],
        "task": parts[0]["task"],
        "rewards": torch.tensor([value for part in parts for value in part["rewards"]]),
        "parts": {name: torch.tensor(values) for name, values in mixed.items()},
    }


def hand_out(
    world: World,
    groups: Sequence[Group],
    kept: Sequence[Judged],
    makers: Sequence[Sequence[Share]],
    takers: Sequence[Sequence[RowShare]],
    find: Find | None = None,
) -> list[Portion]:
    """The rows that this rank trains on; latents and conditioning of a group go to the ranks that lack them.

    A group is sent to all ranks, and those that do not train on it forget it at once.

    Args:
        world: The ranks.
        groups: Groups with edits of this rank.
        kept: Groups that are trained on, with advantages.
        makers: Edits that each worker has made; its first rank has them.
        takers: Rows that each worker trains on, with all of its ranks.
        find: Which tokens of a group are masked, and which must stay; None if nothing is trained on that.
    """
    portions, own = [], {group.index: group for group in groups}
    for judged in kept:
        shares = [share for share in takers[world.worker] if share.index == judged.index]
        sources = [
            worker for worker, made in enumerate(makers) if any(s.count and s.index == judged.index for s in made)
        ]
        needed = {worker for worker, some in enumerate(takers) if any(s.index == judged.index for s in some)}
        group = own.get(judged.index)
        if len(sources) == 1 and needed <= {*sources} and world.context == 1:  # nothing has to travel
            if group is None:
                continue
            conditioning, tokens = group.rollout.conditioning, find and find(group)
            latents, trajectory = group.rollout.latents, group.rollout.trajectory
        else:
            ranks = [world.context * worker for worker in sources]
            conditioning, latents, trajectory, tokens = _collected(world, group, ranks, find)
        edits = replace(judged.edits, latents=latents, levels=judged.levels.to(latents.device), trajectory=trajectory)
        if tokens is not None:
            edits = replace(edits, masked=tokens[0], outside=tokens[1] if tokens[1].any() else None)
        portions += [Portion(judged.index, conditioning, edits, share) for share in shares]
    return portions


def _collected(
    world: World, group: Group | None, sources: Sequence[int], find: Find | None
) -> tuple[Conditioning, Tensor, Tensor | None, Tensor | None]:
    """Conditioning, latents [G, N, C], trajectory and tokens that `find` finds of a group, on every rank."""
    conditioning, tokens, latents, trajectories = None, None, [], []
    for number, source in enumerate(sources):
        value = None
        if group is not None and source == world.rank:
            rollout = group.rollout
            head = [as_dict(rollout.conditioning), find and find(group)] if number == 0 else [None, None]
            value = [*head, rollout.latents, rollout.trajectory]
        first, found, part, trajectory = broadcast(world, value, source)
        conditioning, tokens = (first, found) if number == 0 else (conditioning, tokens)
        latents.append(part)
        trajectories.append(trajectory)
    assert conditioning is not None, "the first source sends it"
    paths = [path for path in trajectories if path is not None]
    return Conditioning(**conditioning), torch.cat(latents), torch.cat(paths, dim=1) if paths else None, tokens


@torch.no_grad()
def sum_gradients(world: World, params: Sequence[Tensor], sums: Tensor, replicas: ProcessGroup | None = None) -> None:
    """Replace the gradients of all ranks by their sum, and `sums` likewise, in one message or two.

    A weight that no rank has a gradient for keeps none: an optimiser passes it by, as in one process. The ranks of a
    worker have each a part of its gradient, but all of them its whole `sums`, which count once.

    Args:
        world: The ranks.
        params: Trained weights; if they are sharded, each backward pass has summed their gradients over the ranks that
            hold one copy together.
        sums: Other numbers, of this rank alone.
        replicas: Ranks that hold the same shard of sharded weights as this one.
    """
    if world.size == 1:
        return
    sums *= world.speaks
    own = torch.tensor([param.grad is not None for param in params], dtype=sums.dtype, device=sums.device)
    gradients = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
    shards = [each.to_local() for each in gradients if isinstance(each, DTensor)]
    world.all_sum([*([] if shards else gradients), sums, own], "the sum of gradients")
    if shards and replicas is not None:
        world.all_sum(shards, "the sum of gradients over replicas", replicas)
    for param, gradient, ranks in zip(params, gradients, own.tolist(), strict=True):
        param.grad = gradient if ranks else None


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all values, those that other ranks hold of sharded tensors included."""
    norm = get_total_norm(tensors)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def as_dict(conditioning: Conditioning) -> dict[str, Any]:
    """Its fields by name, not copied."""
    return {field.name: getattr(conditioning, field.name) for field in fields(conditioning)}


def broadcast(world: World, value: Any, source: int) -> Any:
    """The nest of tensors `value` of rank `source`, on every rank; other ranks give None.

    Lists, tuples, dicts, tensors, number formats and JSON's scalars can be in it.
    """
    tensors: list[Tensor] = []
    layout = _layout(value, tensors) if world.rank == source else None
    layout = json.loads(world.broadcast_bytes(json.dumps(layout).encode(), source))
    return _value(layout, iter(tensors), world, source)


def _layout(value: Any, tensors: list[Tensor]) -> Any:
    """`value` as JSON; its tensors are appended to `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value.detach())
        return {"tensor": _name(value.dtype), "shape": [*value.shape], "gpu": value.is_cuda}
    if isinstance(value, torch.dtype):
        return {"dtype": _name(value)}
    if isinstance(value, dict):
        return {"dict": [[_layout(key, tensors), _layout(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [_layout(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(
        f"the denoiser takes an argument of the type {type(value).__name__}, which cannot be sent to other processes; "
        "train this editor with one process"
    )


def _value(layout: Any, tensors: Any, world: World, source: int) -> Any:
    """The reverse; the tensors travel in the order of the layout."""
    if not isinstance(layout, dict):
        return layout
    if "tensor" in layout:
        dtype = getattr(torch, layout["tensor"])
        if world.rank == source:
            tensor = next(tensors)
        else:
            tensor = torch.empty(layout["shape"], dtype=dtype, device="cuda" if layout["gpu"] else "cpu")
        return world.broadcast_tensor(tensor, source)
    if "dtype" in layout:
        return getattr(torch, layout["dtype"])
    if "dict" in layout:
        return dict([_value(each, tensors, world, source) for each in pair] for pair in layout["dict"])
    items = [_value(item, tensors, world, source) for item in next(iter(layout.values()))]
    return items if "list" in layout else tuple(items)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def cut(group: Group, share: Share) -> Group:
    """The edits of a group that a rank answers for, out of those that it made."""
    keep = slice(share.first - group.first, share.first - group.first + share.count)
    if (keep.start, share.count) == (0, len(group.rollout.images)):
        return group
    rollout = group.rollout
    part = replace(
        rollout,
        latents=rollout.latents[keep],
        images=rollout.images[keep],
        trajectory=None if rollout.trajectory is None else rollout.trajectory[:, keep],
    )
    return replace(
        group,
        first=share.first,
        rollout=part,
        rewards=None if group.rewards is None else group.rewards[keep],
        reasons=group.reasons[keep],
        parts={name: values[keep] for name, values in group.parts.items()},
        parts_reasons={name: reasons[keep] for name, reasons in group.parts_reasons.items()},
    )
