"""Ranks that do not exist: a rehearsal is that of rank 0, whose messages go nowhere (torch's fake process group).

What shares weights (`editors/sharding.py`) and calls (`editors/context.py`) is the code of a run; what ranks would send
each other is counted in `shadow.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import lcm

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from editr1.config.settings import Config
from editr1.editors.context import open_context
from editr1.editors.sharding import open_mesh
from editr1.errors import UserError


@dataclass(frozen=True)
class Spread:
    """What neighbouring ranks share.

    Attributes:
        shard: Ranks that hold the weights together.
        context: Ranks that share the tokens of each denoiser call.
        encoders: Ranks that hold large text encoders together.
        keeps_gathered: Whether gathered weights of the denoiser stay between calls.
    """

    shard: int = 1
    context: int = 1
    encoders: int = 1
    keeps_gathered: bool = False


WHOLE = Spread()
"""Nothing is shared."""


@contextmanager
def neighbours(spread: Spread) -> Iterator[tuple[DeviceMesh | None, DeviceMesh | None]]:
    """This process as rank 0 of those that share weights or tokens: the mesh of each, None where nothing is shared."""
    ranks = lcm(spread.shard, spread.context)
    if ranks == 1:
        yield None, None
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield open_mesh(ranks, spread.shard, "cpu"), open_context(ranks, spread.context, "cpu")
    finally:
        dist.destroy_process_group()


def refuse_rest(config: Config, ranks: int) -> None:
    """Refuse numbers of ranks that cannot form the groups of `parallel`.

    Raises:
        UserError: There is a rest.
    """
    for name in ("shard", "context"):
        if ranks % (size := getattr(config.parallel, name)):
            raise UserError(
                f"parallel.{name}={size}: {ranks} GPUs are no multiple of it; set it to a divisor, or change --gpus"
            )
