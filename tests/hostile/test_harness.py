"""The harness tells right from wrong."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from editr1.errors import UserError
from tests.hostile.harness import Case, _child, attempt, command


def refuse(words: str, folder: Path) -> None:
    raise UserError(words)


def say(words: str, folder: Path) -> None:
    error = UserError("")
    error.args = (words,)  # it makes its words printable and short itself
    raise error


def assert_wrong(folder: Path) -> None:
    assert folder == Path("elsewhere")


def log_traceback(folder: Path) -> None:
    os.write(2, b"Traceback (most recent call last):\n")


def write_here(folder: Path) -> None:
    Path("file").write_text("here", encoding="utf-8")
    assert (folder / "file").is_file()


VERDICTS = {
    "a file in its folder": (Case("", write_here, "clean"), "clean"),
    "help": (Case("", lambda _: command("--help"), "clean"), "clean"),
    "a refusal": (Case("", partial(refuse, "no: mend it")), "one line"),
    "a command that refuses": (Case("", lambda _: command("report", "nowhere")), "one line"),
    "an unknown command": (Case("", lambda _: command("fly")), "one line"),
    "nothing said": (Case("", lambda _: None), "silent"),
    "a wrong result": (Case("", assert_wrong, "either"), "silent"),
    "another exception": (Case("", lambda folder: {folder: 1}[Path()]), "traceback"),
    "a logged traceback": (Case("", log_traceback, "clean"), "traceback"),
    "control characters": (Case("", partial(say, "a\x1b[31m")), "traceback"),
    "a page of words": (Case("", partial(say, "word " * 300)), "traceback"),
    "too much memory": (Case("", lambda _: bytearray(2**31), "clean"), "traceback"),
    "a dead process": (Case("", lambda _: os._exit(0), "clean"), "traceback"),
    "no end": (Case("", lambda _: time.sleep(60), "clean", seconds=0.2), "endless"),
}


def test_a_child_whose_end_nobody_reads_ends_too(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    output = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    if (child := os.fork()) == 0:
        try:
            os.close(reader)  # nobody has it open, as after a time-out
            _child(Case("", lambda _: None, "clean"), tmp_path, writer, output)
        finally:
            os._exit(99)  # it went on
    os.close(writer)
    os.close(reader)
    end = time.monotonic() + 60
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


@pytest.mark.parametrize("name", VERDICTS)
def test_each_end_of_a_try_has_its_verdict(name: str, tmp_path: Path) -> None:
    case, verdict = VERDICTS[name]
    outcome = attempt(case, tmp_path)
    assert outcome.verdict == verdict, outcome.words
    assert verdict != "endless" or "test_harness.py" in outcome.words  # where it hung
