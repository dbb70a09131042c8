"""Several calls at a time, with results in order and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
