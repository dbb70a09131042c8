"""The moments in which a run may not be stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""The signals that ask a program to stop: Ctrl-C, a scheduler's, and that of a terminal which is closed."""


def stops() -> list[signal.Signals]:
    """The signals that ask this process to stop; not SIGHUP under nohup, which ignores it."""
    return [each for each in STOPS if each is signal.SIGINT or signal.getsignal(each) is not signal.SIG_IGN]


def raise_when_stopped() -> None:
    """Let all of them raise KeyboardInterrupt from now on."""
    for number in stops():
        signal.signal(number, signal.default_int_handler)


class Interrupts:
    """Inside, Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt; within a `held()` block they wait for its end.

    Args:
        together: Whether a signal waits until the ranks of the run stop together; a second one does not.

    Attributes:
        requested: Whether a signal waits.
    """

    def __init__(self, together: bool = False) -> None:
        self._together = together
        self._holding = False
        self.requested = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in stops():
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that runs to its end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self.requested and not self._together:
            self.requested = False
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._holding and (self.requested or not self._together):
            raise KeyboardInterrupt
        self.requested = True
