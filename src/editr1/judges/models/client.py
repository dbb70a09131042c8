"""Calls to endpoints from any thread: an event loop of their own, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from editr1.judges.models.endpoints import Endpoints

T = TypeVar("T")


class Client:
    """Runs calls to `endpoints` in a thread of this `name`; `gather` may be called from several threads at once.

    The thread starts with the first call, and again with the first one after `close`.
    """

    def __init__(self, endpoints: Endpoints, name: str) -> None:
        for library in ("httpx", "httpcore"):  # they log every request, and what servers send in headers
            logging.getLogger(library).setLevel(logging.WARNING)
        self.endpoints = endpoints
        self.name = name
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()  # of loop and thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def gather(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Results of the calls, in their order. Each starts at once; all are withdrawn if the wait is interrupted."""
        futures: list[Future[T]] = []
        loop = self._running_loop()
        try:
            for call in calls:
                futures.append(asyncio.run_coroutine_threadsafe(call, loop))
                self._pending.add(futures[-1])
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
                self._pending.discard(future)

    def close(self) -> None:
        """Withdraw all calls and end the thread; threads that wait in `gather` get a CancelledError."""
        with self._lock:
            if self._loop is None or self._thread is None:
                return
            for future in list(self._pending):
                future.cancel()
            asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            for future in list(self._pending):  # of calls that came meanwhile
                future.cancel()
            self._loop.close()
            self._loop = self._thread = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=self.name, daemon=True)
                self._thread.start()
            return self._loop

    async def _wind_up(self) -> None:
        """End every task of the loop, so that none waits for ever, and forget what belongs to the loop."""
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.endpoints.reset()
