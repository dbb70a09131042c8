"""The file of all results, benchmarks/results.json: each part of the benchmark replaces its own keys.

Key "made" says of each part by which command, when, on which machine and with which versions it was measured.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from editr1.errors import UserError
from editr1.files import write_file

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PACKAGES = ("torch", "diffusers", "transformers", "peft")


def read() -> dict[str, Any]:
    """All results; none without a file."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return results


def add(part: str, figures: Mapping[str, Any], command: str) -> None:
    """Replace the keys of a part, and say how they were made."""
    results = read()
    made = {**results.get("made", {}), part: origin(command)}
    write_file(RESULTS, json.dumps({**results, **figures, "made": made}, indent=1).encode() + b"\n")


def add_entry(path: Path, name: str, figures: Mapping[str, Any], command: str) -> None:
    """Replace one entry of a file that has several, and say how it was made."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    entry = {**figures, "made": origin(command)}
    write_file(path, json.dumps({**known, name: entry}, indent=1).encode() + b"\n")


def origin(command: str) -> dict[str, Any]:
    """Command, date, commit, machine and versions of figures that were just measured."""
    return {
        "command": command,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def machine() -> str:
    """Processor, threads in use, memory."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    memory = psutil.virtual_memory().total / 2**30
    return f"{name}, {psutil.cpu_count()} cores, {torch.get_num_threads()} threads, {memory:.0f} GiB"


def commit() -> str | None:
    """The commit of the repository, with "+" if files differ from it; None outside of one."""
    git = ("git", "-C", str(HERE))
    try:
        head, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True, timeout=60).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changes)


def finish(main: Callable[[], int]) -> None:
    """End with the exit code that `main` returns; with 2 and one line if something is wrong with what it was given."""
    try:
        sys.exit(main())
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
