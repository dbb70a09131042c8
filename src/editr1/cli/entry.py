"""The beginning of the `editr1` command: Ctrl-C ends it with a line also while it still loads."""

from __future__ import annotations

import os
import sys

from editr1.training.interrupts import raise_when_stopped


def main() -> None:
    """Entry point."""
    try:
        if os.environ.get("WORLD_SIZE", "1") == "1":
            raise_when_stopped()  # not a rank: it may wait for others where Python sees no signal; SIGTERM must end it
        from editr1.cli.main import main as run  # takes half a second
    except KeyboardInterrupt:
        sys.stderr.write("editr1: stopped\n")
        sys.exit(130)
    run()
