"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from editr1.errors import UserError


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made.

    Raises:
        UserError: the disk does not take it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        sync(part)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # its folder may be what is wrong
            part.unlink()
        raise UserError(f"cannot write {path}: {error}") from error


def append_lines(path: Path, lines: Iterable[Any]) -> None:
    """Append JSON lines and see them on the disk.

    Raises:
        UserError: the disk does not take them.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; make room, and run the same command again") from error


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
