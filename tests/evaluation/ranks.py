"""Ranks of one run as threads of this process: what they share out and gather, without the start of processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any, TypeVar

from editr1.training.distributed import World

T = TypeVar("T")


@dataclass(frozen=True)
class ThreadWorld(World):
    """A rank that meets the others in a barrier; values travel as JSON, as between processes."""

    barrier: Barrier = field(default_factory=lambda: Barrier(1))
    board: dict[int, str] = field(default_factory=dict)

    def gather(self, value: Any, place: str) -> list[Any]:
        self.board[self.rank] = json.dumps(value)
        self.meet(place)
        values = [json.loads(self.board[rank]) for rank in range(self.size)]
        self.meet(place)
        return values

    def meet(self, place: str) -> None:
        self.barrier.wait(timeout=60)


def together(ranks: int, work: Callable[[World], T]) -> list[T]:
    """What `work` returns on each rank; when one raises, no other goes on."""
    barrier, board = Barrier(ranks), dict[int, str]()

    def one(rank: int) -> T:
        try:
            return work(ThreadWorld(rank, ranks, 60.0, barrier=barrier, board=board))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return [future.result() for future in [pool.submit(one, rank) for rank in range(ranks)]]
