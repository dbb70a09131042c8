"""Files that are written whole or not at all, files of JSON lines that grow row by row, and a file that one holds.

If the disk is full, writing raises a UserError.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from editr1.errors import UserError, first_line, first_problem, parse_json, printable, text_of

_log = logging.getLogger(__name__)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of a file system
PLAIN_KEY = re.compile(r"[a-z0-9][a-z0-9._/-]{0,99}")
Row = TypeVar("Row")
_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())  # by the blocks around


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is created."""
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        sync(part)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder may be the cause
            part.unlink()
        raise UserError(f"cannot write {path}: {error}") from error


def make_folder(path: Path) -> Path:
    """Make a folder, unless it is there; a UserError if there can be none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot make the folder {path}: {error}; choose another one") from error
    return path


@contextmanager
def locked(path: Path, held: bool = True) -> Iterator[None]:
    """Hold a file, which names this process; however the process ends, the system frees the file with it.

    A block inside a block of the same file holds it already.

    Args:
        path: The file; its folder is made.
        held: Whether it is this process that holds it, and not another one of the same run.

    Raises:
        UserError: Another process holds it; names that one.
    """
    around = _held.get()
    if not held or path.absolute() in around:
        yield
        return
    make_folder(path.parent)
    with _lock(path):
        _held.set(around | {path.absolute()})
        try:
            yield
        finally:
            _held.set(around)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """One process at a time; the others wait, as for what is made once for all of them. The file's folder is made."""
    make_folder(path.parent)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(path: Path) -> TextIO:
    """The file, open and locked."""
    try:
        file = path.open("a+", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
    except BlockingIOError as error:
        raise UserError(
            f"{path.parent} is in use by {path.read_text()}; wait until it ends, or end it, or choose another folder"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise UserError(f"cannot write {path}: {error}; make room, and run the same command again") from error
        _log.warning("%s: the file system has no locks; let no second run write there meanwhile", path.parent)
    return file


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first setting that differs, as "steps 28, now it is 50"; None if all are equal. A missing one is None."""
    for name in {**old, **new}:
        if (before := old.get(name)) != (now := new.get(name)):
            return f"other {name}" if isinstance(before, list) else f"{name} {before!r}, now it is {now!r}"
    return None


def file_name(key: str) -> str:
    """The start of a file's name for a key: readable, and no two keys share one, whatever the case of letters means.

    A key of at most 100 of the characters "a-z0-9._-/" is its own name, with "+" for "/". That of any other one is as
    much of it as can be read, "~", and 24 digits of its SHA-256.
    """
    if PLAIN_KEY.fullmatch(key):
        return key.replace("/", "+")
    readable = re.sub(r"[^a-z0-9._-]+", "-", key.lower())[:60].lstrip(".-")
    return f"{readable or 'key'}~{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:24]}"


def read_lines(path: Path, *, allow_nan: bool = False) -> list[Any]:
    """The values in a file of JSON lines, without a cut-off last line; a UserError names a line that is not JSON."""
    try:
        *lines, _ = text_of(path).split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from error
    return [
        parse_json(line, f"{path}:{number}", allow_nan=allow_nan)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def loader(kind: type[Row]) -> Callable[..., Row]:
    """What makes a dataclass of the keys and values of a line as they are; a ValueError names what is wrong with it."""
    form, names = TypeAdapter(kind), {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]

    def load(**fields: Any) -> Row:
        if further := sorted(fields.keys() - names):
            raise ValueError(f"unknown key {printable(further[0])!r}")
        try:
            return form.validate_json(json.dumps(fields), strict=True)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error

    return load


class JsonLines(Generic[Row]):
    """A file of JSON objects, one per line, perhaps below a head with the settings that they are made with.

    Args:
        path: The file; the first `append` or `replace` writes it.
        what: Name of the rows in messages.
        remedy: Advice of messages if the file does not fit: its settings differ, or it is something else.
        head: The first line; None for a file without one. A file with a head and no rows fits every head.
        gains: A setting of the head that is a mapping and may gain entries.
        load: Makes a row from the keys and values of a line.
        writes: Whether this process writes; of several ranks one does, and the others only read.
        options: Options of `json.dumps`.

    Attributes:
        head: The first line; None for a file without one.
        rows: The rows in the file when it is opened, without a cut-off last line.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        remedy: str,
        *,
        head: Mapping[str, Any] | None = None,
        gains: str = "",
        load: Callable[..., Row],
        writes: bool = True,
        **options: Any,
    ) -> None:
        self.path, self._options, self._clean, self._writes = path, {"allow_nan": False, **options}, False, writes
        lines = self._read() if path.exists() else []
        try:
            old = dict(lines[0]) if head is not None and lines else None
            self.rows = [load(**line) for line in lines[head is not None :]]
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is no file of {what} ({error!r}): {remedy}") from error
        if head is not None and old is not None and self.rows:
            if gains:
                before, now = old.get(gains, {}), head[gains]
                if not isinstance(before, dict):
                    raise UserError(f"{path} is no file of {what} ({gains}: not a mapping): {remedy}")
                old, head = {**old, gains: now | before}, {**head, gains: before | now}
            if difference := first_difference(old, head):
                raise UserError(f"{path} holds {what} with {difference}: {remedy}")
        self.head = None if head is None else dict(head)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows; they are on the disk when this returns."""
        if not self._writes:
            return
        if not self._clean:
            self.replace(self._read()[self.head is not None :] if self.path.exists() else [])
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._text(rows))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}; make room, and run the same command again") from error

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the content of the file by the head and these rows, whole or not at all."""
        if not self._writes:
            return
        write_file(self.path, self._text([*([] if self.head is None else [self.head]), *rows]).encode())
        self._clean = True

    def _read(self) -> list[Any]:
        return read_lines(self.path, allow_nan=self._options["allow_nan"])

    def _text(self, rows: Iterable[Mapping[str, Any]]) -> str:
        return "".join(json.dumps(row, **self._options) + "\n" for row in rows)
