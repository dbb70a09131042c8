"""Odd environments, odd names and closed streams: a command does its work, or says in one line why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.data.pictures import open_picture
from tests.hostile.harness import TRACEBACK, Case, Judged, command

SERVER = "openai:{}://127.0.0.1:9/v1?model=m&timeout=3&tries=1&{}"
ELSEWHERE = "openai:http://h.invalid/v1?model=m&timeout=3&tries=1"


def score(judge: str, variables: dict[str, str], folder: Path) -> None:
    """Ask a judge that is not there."""
    os.environ.update(variables)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "red").save(folder / name)
    command("judge", "score", "a.png", "b.png", "go", "--judge", judge)


def run(arguments: tuple[Any, ...], variables: dict[str, str | None], folder: Path) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    command(*arguments)


PROXIES = (
    "http://127.0.0.1:9",
    "127.0.0.1:9",
    "::::",
    "socks5://127.0.0.1:9",
    "ftp://h",
    "http://[",
    "http://h:99999",
    " ",
    "\ud800",
)
CERTIFICATES = {"SSL_CERT_FILE": ("/nonexistent", "/etc/passwd", "/dev/null", ""), "SSL_CERT_DIR": ("/nonexistent", "")}
JUDGES = (
    "openai:", "openai:http://", "openai:http://h", "openai:http://h/v1?model=", "openai:http://h:x/v1?model=m",
    "openai:ftp://h/v1?model=m", "openai:http://u:p@h/v1?model=m", "openai:http://h/v1?model=m&timeout=x",
    "openai:http://h/v1?model=m&timeout=-1", "openai:http://h/v1?model=m&nothing=1", "openai:http://\x1b[2J/v1?model=m",
    "openai:http://xn--a/v1?model=m&timeout=1&tries=1", "openai:http://" + 300 * "a" + "/v1?model=m&timeout=1&tries=1",
    "toy?", "toy?=", "toy?scale=[0,1e9]", "toy?method=score_logit&method=yes_no", "toy?samples=100000000", "toy:",
    "toy:x", "toy:../..", "nowhere", "a/b/c", "/", "/etc", "/etc/passwd", "-", "", " ", "\n", "🐈", "~nobody",
    5000 * "a",
)  # fmt: skip
CHECK = ("check", "toy", "out=out")
ODD_ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None},
    "a home that is not there": {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/proc/x"},
    "no folder for temporary files": {"TMPDIR": "/nonexistent", "TEMP": "/proc", "TMP": "\n"},
    "columns that are no number": {"COLUMNS": "abc", "LINES": "-1", "TERM": "nothing"},
    "no columns": {"COLUMNS": "0"},
    "GPUs that are none": {"CUDA_VISIBLE_DEVICES": "abc"},
}
OUT = (
    "-x",
    "a\nb",
    "🐈",
    " ",
    "",
    "\x1b[2J",
    "a" * 256,
    "a/" * 3000,
    "\ud800",
    "con",
    "a\0b",
    "~nobody/x",
    "/dev/null/x",
    "/proc/x",
)
EDITS: dict[str, tuple[Any, ...]] = {
    "no instruction": ("",),
    "an instruction of spaces": ("   ",),
    "an instruction of control characters": ("\0\x1b[2J\n",),
    "an instruction of 4,000 letters": (4000 * "a",),
    "half a character": ("go\ud800",),
    "steps of 10^9 letters": ("go", "--steps", "9" * 5000),
    "no steps": ("go", "--steps", 0),
    "one pixel": ("go", "--pixels", 1),
    "10^18 pixels": ("go", "--pixels", 10**18),
    "guidance of NaN": ("go", "--guidance", "nan"),
    "infinite guidance": ("go", "--guidance", "inf"),
    "negative guidance": ("go", "--guidance", -1),
    "a seed of 10^30": ("go", "--seed", 10**30),
    "a negative seed": ("go", "--seed", -1),
    "a scale without a LoRA": ("go", "--lora-scale", 2),
    "a scale of NaN": ("go", "--lora-scale", "nan"),
    "an unknown format": ("go", "--out", "x.xyz"),
    "no format": ("go", "--out", "x"),
    "a PDF": ("go", "--out", "x.pdf"),
    "the source itself": ("go", "--out", "a.png"),
    "a folder": ("go", "--out", "d.png"),
    "below a file": ("go", "--out", "a.png/b.png"),
    "a name of 300 letters": ("go", "--out", 300 * "a" + ".png"),
    "a name with a NUL": ("go", "--out", "a\0.png"),
    "a device": ("go", "--out", "/dev/full"),
}


def edit(arguments: tuple[Any, ...], folder: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    (folder / "d.png").mkdir()
    options = ("--editor", "toy") if "--steps" in arguments else ("--editor", "toy", "--steps", 2)
    command("edit", "a.png", *arguments, *options)
    assert open_picture(
        next(path for path in folder.rglob("*") if path.is_file() and path.name != "a.png"), "a"
    ).size == (64, 64)


CASES = (
    *(
        Case(f"{name}={proxy!r}", partial(score, ELSEWHERE, {name: proxy.encode("utf-8", "replace").decode()}))
        for name in ("http_proxy", "ALL_PROXY")
        for proxy in PROXIES
    ),
    *(
        Case(f"{name}={path!r}", partial(score, SERVER.format("https", ""), {name: path}))
        for name, paths in CERTIFICATES.items()
        for path in paths
    ),
    *(
        Case(f"no_proxy={value!r}", partial(score, ELSEWHERE, {"no_proxy": value}))
        for value in ("*", "[::", "://,", ",,", "h:x")
    ),
    *(Case(f"--judge {judge[:30]!r}", partial(score, judge, {}), "either") for judge in JUDGES),
    *(Case(name, partial(run, CHECK, variables), "clean") for name, variables in ODD_ENVIRONMENTS.items()),
    *(Case(f"out={out[:20]!r}", partial(run, ("check", "toy", f"out={out}"), {}), "either") for out in OUT),
    *(Case(f"edit: {name}", partial(edit, arguments), "either") for name, arguments in EDITS.items()),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_surroundings_break_a_command(case: Case, judged: Judged) -> None:
    judged(case)


LAUNCHES: dict[str, dict[str, str]] = {
    "no rank": {"WORLD_SIZE": "2"},
    "words": {"WORLD_SIZE": "abc"},
    "nothing": {"WORLD_SIZE": ""},
    "no ranks": {"WORLD_SIZE": "0"},
    "half of it": {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    "a rank that is none": {
        "WORLD_SIZE": "2",
        "RANK": "x",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_PORT": "1",
    },
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_another_launcher_than_torchrun_is_one_line(name: str) -> None:
    process = [sys.executable, "-m", "editr1", "check", "toy"]
    done = subprocess.run(process, env={**os.environ, **LAUNCHES[name]}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "start several processes with torchrun, or unset WORLD_SIZE" in done.stderr


@pytest.mark.parametrize(
    ("streams", "codes"),
    [
        (">&-", (0,)),
        (">/dev/full", (2,)),
        ("| head -c 9", (0, 1)),
        ("2>&-", (0,)),
        ("2>/dev/full", (0,)),
        ("<&-", (0,)),
    ],
)
def test_streams_that_are_closed_or_full_are_no_traceback(streams: str, codes: tuple[int, ...]) -> None:
    line = f"set -o pipefail; {sys.executable} -m editr1 editor list --json {streams}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode in codes and TRACEBACK not in done.stderr, done.stderr


def test_a_name_of_bytes_is_printed_as_it_is(tmp_path: Path) -> None:
    process = [sys.executable, "-m", "editr1", "toy", "sample", "--out", os.fsdecode(b"\xff.png")]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(process, cwd=tmp_path, env=strict, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"\xff.png\n"), done.stderr
