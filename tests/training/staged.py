"""The editr1 command, with the stage that a run is in written down: `python staged.py FOLDER train CONFIG ...`.

FOLDER/RANK.PID gets a line "STAGE SECONDS" when a stage begins, so that `kills.py` can kill the process in it. Nothing
else differs from the command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def main() -> None:
    path = Path(sys.argv.pop(1)) / f"{os.environ.get('RANK', '0')}.{os.getpid()}"
    file = path.open("w", buffering=1)

    def tell(stage: str) -> None:
        file.write(f"{stage} {time.monotonic()}\n")

    tell("start")
    from editr1.cli.main import app
    from editr1.training import checkpoint
    from editr1.training.log import RunLog, Stopwatch
    from editr1.training.process_end import run_and_exit

    count, save, write = Stopwatch.__call__, checkpoint.save, RunLog.write

    @contextmanager
    def told(watch: Stopwatch, part: str) -> Iterator[None]:
        tell(part)
        with count(watch, part):
            yield
        tell("rest")

    def told_save(*arguments: Any) -> Path:
        tell("save")
        folder = save(*arguments)
        tell("rest")
        return folder

    def told_write(log: RunLog, row: dict[str, Any]) -> None:
        tell("row")
        write(log, row)
        tell("rest")

    replacements = ((Stopwatch, "__call__", told), (RunLog, "write", told_write), (checkpoint, "save", told_save))
    for owner, name, function in replacements:
        setattr(owner, name, function)
    run_and_exit(app)


if __name__ == "__main__":
    main()
