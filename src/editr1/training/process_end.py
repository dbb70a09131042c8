"""How the process of a rank ends."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(program: Callable[[], object]) -> NoReturn:
    """Run a program and end the process with its exit code, without taking the interpreter down.

    Threads of gloo outlive their process group while a device mesh knows it. One that lets go of a tensor after the
    interpreter has begun to end would abort the process (signal 6), and torchrun would call a finished run failed.
    """
    code = 0
    try:
        program()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001  # the interpreter would show it too
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
