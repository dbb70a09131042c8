"""A file that somebody else holds, by the system's own call."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    """Hold a lock file that says it is this process's, as an open file of its own: the system knows no owner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"process {os.getpid()} on here")
        file.flush()
        yield
