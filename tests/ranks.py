"""Ranks of this machine, started by torchrun as a user starts them; a start that hangs says where.

What ranks say is read as they say it: a rank whose pipe is full waits for ever. A start that hangs nevertheless is
ended, with the stacks of its ranks in the summary of the test run, and made once more; what hangs twice fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
SECONDS = 300.0
"""Longest time that ranks may take: ten times what most do on two idle cores."""


class RanksHang(Exception):
    """Ranks did not end in time; the text holds their stacks."""


class HangWarning(UserWarning):
    """Ranks hung, and were started once more."""


def launcher(ranks: int, restarts: int = 0) -> list[str]:
    """The words before a program, or before "-m MODULE", that start it on several ranks."""
    options = ("--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}")
    return [sys.executable, "-m", "torch.distributed.run", *options]


def torchrun(ranks: int, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a module on ranks of this machine; options are those of `subprocess.Popen`."""
    return run_ranks([*launcher(ranks), "-m", *arguments], **options)


def run_ranks(command: list[str], seconds: float = SECONDS, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that starts ranks; a second time if it hangs."""

    def run() -> subprocess.CompletedProcess[str]:
        with started(command, **options) as process:
            try:
                said, error = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as late:
                raise RanksHang(stacks(process)) from late
        return subprocess.CompletedProcess(command, process.returncode, said, error)

    return once_more(run)


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that starts ranks, whose processes are gone afterwards."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **options.pop("env", {})}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill([*children(process.pid), process.pid], signal.SIGKILL)


def once_more(attempt: Callable[[], T]) -> T:
    """What an attempt returns; if its ranks hang, a second one."""
    try:
        return attempt()
    except RanksHang as hang:
        warnings.warn(str(hang), HangWarning, stacklevel=2)
        return attempt()


def stacks(process: subprocess.Popen[str], seconds: float = 30.0) -> str:
    """End ranks and what started them; the end of what they said, with the stacks of all threads."""
    for pid in children(process.pid):
        kill([pid], signal.SIGABRT)
        time.sleep(0.5)  # torchrun ends the others when one ends: they need a moment, one after the other
    try:
        _, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill([*children(process.pid), process.pid], signal.SIGKILL)
        _, error = process.communicate(timeout=seconds)
    told = [line for line in error.splitlines() if not line.startswith("Extension modules")]
    return "ranks hang: " + "\n".join(told)[-12_000:]


def children(pid: int) -> list[int]:
    """The processes that a process has started; none if it is gone."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def kill(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
