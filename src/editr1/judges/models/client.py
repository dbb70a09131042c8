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
    """Runs calls to `endpoints` in a thread of this `name`; `gather` may be called from several threads at once."""

    def __init__(self, endpoints: Endpoints, name: str) -> None:
        for library in ("httpx", "httpcore"):  # they log every request, and what servers send in headers
            logging.getLogger(library).setLevel(logging.WARNING)
        self.endpoints = endpoints
        self._pending: set[Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def gather(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Results of the calls, in their order. Each starts at once; all are withdrawn if the wait is interrupted."""
        futures: list[Future[T]] = []
        try:
            for call in calls:
                futures.append(asyncio.run_coroutine_threadsafe(call, self._loop))
                self._pending.add(futures[-1])
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
                self._pending.discard(future)

    def close(self) -> None:
        """Withdraw all calls and end the thread; threads that wait in `gather` get a CancelledError."""
        if self._loop.is_closed():
            return
        for future in list(self._pending):
            future.cancel()
        for endpoint in self.endpoints.endpoints:
            for client in endpoint.clients:
                asyncio.run_coroutine_threadsafe(client.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
