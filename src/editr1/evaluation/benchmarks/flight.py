"""Several calls at a time, with results in order and bounded memory; by one process or shared by ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from editr1.training.distributed import World

Job = TypeVar("Job")
Done = TypeVar("Done")


def in_flight(jobs: Iterable[Job], work: Callable[[Job], Done], width: int) -> Iterator[Done]:
    """Results of `work` on all jobs: `width` run at a time, and at most twice as many results are held."""
    pool = ThreadPoolExecutor(width, "benchmark")
    waiting: deque[Future[Done]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) == 2 * width:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def shared(
    jobs: Sequence[Job],
    work: Callable[[Job], Done],
    width: int,
    world: World,
) -> Iterator[Done]:
    """As `in_flight`, with `width` jobs of every rank at a time; every rank gets all results, in the same order.

    Results are JSON, and travel as soon as every rank has as many as `in_flight` holds.
    """
    if world.size == 1:
        yield from in_flight(jobs, work, width)
        return
    part = 2 * width
    for start in range(0, len(jobs), part * world.size):
        own = jobs[start + world.rank * part :][:part]
        for results in world.gather([*in_flight(own, work, width)], "the answers to a round of questions"):
            yield from results
