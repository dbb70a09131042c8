"""The editr1 command, whose rank 1 is lost in the second turn of an evaluation: `torchrun ... lost_rank.py eval`."""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import Any

from editr1.cli.main import app
from editr1.training.distributed import World
from editr1.training.process_end import run_and_exit

ROWS = "the rows of an evaluation"  # where ranks meet at the end of a turn


def main() -> None:
    gather, turns = World.gather, count(1)

    def lost(world: World, value: Any, place: str) -> list[Any]:
        if world.rank == 1 and place == ROWS and next(turns) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return gather(world, value, place)

    setattr(World, "gather", lost)  # noqa: B010
    run_and_exit(app)


if __name__ == "__main__":
    main()
