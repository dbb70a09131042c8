"""Hostile tries: each in a process of its own with limits on memory and time, and a verdict for each.

How to add cases. A file of this folder holds a table and one test:

    CASES = (
        Case("a number of 5,000 digits", partial(read, "seed: " + 5000 * "9")),  # must be refused, in one line
        Case("a BOM", partial(read, "\\ufeffseed: 1"), expects="clean"),  # must work
    )

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_no_config_breaks_it(case: Case, judged: Judged) -> None:
        judged(case)

`Case.act` is called with an empty folder, which is the working directory too. It refuses by raising UserError (or
through `command`, which runs the command line), and asserts what must hold if it returns: an AssertionError is the
verdict "silent", a wrong result without a word. Slow imports belong at the top of the file, not into `act`: children
are forks of the test's process. Threads, servers and connections are made in `act`; they die with the child. To use a
fixture, let the test take it and pass `dataclasses.replace(case, act=partial(case.act, fixture))`.

The number of tries by verdict is printed when the tests end (`tests/conftest.py`).
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.errors import UserError

Verdict = Literal["clean", "one line", "traceback", "silent", "endless"]
MEMORY = 2**30
SECONDS = 60.0
LONGEST = 1000
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Case:
    """One try.

    Attributes:
        name: What is tried, unique in its table.
        act: Tries it in the folder that it is called with.
        expects: The right verdict; "either" is a clean end or one line.
        seconds: Longest time until the try counts as endless; the machine may be busy.
        memory: Bytes that it may take beyond what the process has when it begins.
    """

    name: str
    act: Callable[[Path], object]
    expects: Literal["one line", "clean", "either"] = "one line"
    seconds: float = SECONDS
    memory: int = MEMORY

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Outcome:
    """Verdict of a try, and the words that it ended with."""

    verdict: Verdict
    words: str = ""


Judged = Callable[[Case], Outcome]
"""The fixture of `conftest.py`: tries a case in an empty folder, and fails the test if the verdict is wrong."""


def attempt(case: Case, folder: Path) -> Outcome:
    """Try a case in a child process; nothing that it does there reaches this one."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside the threads of pytest-xdist
        child = os.fork()
        if child == 0:
            os.close(reader)
            _child(case, folder, writer, output.fileno())
        os.close(writer)
        try:
            outcome = _wait(reader, case.seconds)
            if outcome.verdict == "endless":
                os.kill(child, signal.SIGUSR1)  # it prints where it hangs
                time.sleep(0.2)
        finally:
            os.close(reader)
            os.kill(child, signal.SIGKILL)  # it is still there: nobody has waited for it
            os.waitpid(child, 0)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if outcome.verdict in ("clean", "one line") and TRACEBACK in printed:
        return Outcome("traceback", printed[-LONGEST:])
    if outcome.verdict in ("silent", "endless") and printed:
        return Outcome(outcome.verdict, f"{outcome.words}\nIt printed: {printed[-8 * LONGEST :]}")
    return outcome


def command(*arguments: object) -> str:
    """What a command of editr1 prints; one that ends with code 2 and one line per fault raises it as a UserError."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exit_code == 0:
        return result.output
    if result.exit_code == 2 and TRACEBACK not in result.stderr:
        lines = [line for line in result.stderr.split("\n") if line.startswith("editr1: ")]
        if wrong := [line for line in lines if not line.isprintable()]:  # a UserError would make it printable
            raise RuntimeError(f"not a readable line: {wrong[0]!r}")
        raise UserError("\n".join(lines) or result.stderr.strip())  # or the words about a wrong option
    raise RuntimeError(f"code {result.exit_code}: {result.output[-LONGEST:]}") from result.exception


def _child(case: Case, folder: Path, writer: int, output: int) -> None:
    """Try the case, write its outcome and end the process."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(folder)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + case.memory, resource.RLIM_INFINITY))
    faulthandler.register(signal.SIGUSR1, file=output)
    outcome = _outcome(case, folder)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            json.dump([outcome.verdict, outcome.words], pipe)
    finally:  # the parent may have closed its end after a time-out
        os._exit(0)


def _outcome(case: Case, folder: Path) -> Outcome:
    try:
        case.act(folder)
    except UserError as error:
        return _refusal(str(error))
    except AssertionError:
        return Outcome("silent", traceback.format_exc()[-LONGEST:])
    except BaseException:  # noqa: BLE001  # whatever it is, it is the verdict
        return Outcome("traceback", traceback.format_exc()[-LONGEST:])
    return Outcome("silent", "it is not refused") if case.expects == "one line" else Outcome("clean")


def _refusal(words: str) -> Outcome:
    """Printable lines of a readable length are right."""
    lines = words.split("\n")
    if all(line.isprintable() and 0 < len(line) <= LONGEST for line in lines):
        return Outcome("one line", words)
    return Outcome("traceback", f"not a readable line: {words[:LONGEST]!r}")


def _wait(reader: int, seconds: float) -> Outcome:
    """What the child writes; it writes once, at its end."""
    if not select.select([reader], [], [], seconds)[0]:
        return Outcome("endless", f"not done after {seconds:g} s")
    with os.fdopen(os.dup(reader), encoding="utf-8") as pipe:
        text = pipe.read()
    return Outcome(*json.loads(text)) if text else Outcome("traceback", "the process died")
