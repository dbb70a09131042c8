"""Files that are written whole or not at all, and files of JSON lines that grow row by row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from editr1.errors import UserError

Row = TypeVar("Row")


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


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def first_difference(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first setting that differs, as "steps 28, now it is 50"; None if all are equal. A missing one is None."""
    for name in {**held, **wanted}:
        old, new = held.get(name), wanted.get(name)
        if old != new:
            return f"other {name}" if isinstance(old, list) else f"{name} {old!r}, now it is {new!r}"
    return None


def read_lines(path: Path) -> list[Any]:
    """The values in a file of JSON lines; a last line that was cut off while being written is left out.

    Raises:
        UserError: the file cannot be read; the line is named.
    """
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return [_value(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _value(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error


class JsonLines(Generic[Row]):
    """A file of JSON objects, one per line, perhaps below a head that says with which settings they are made.

    Args:
        path: The file; the first `append` or `replace` writes it.
        what: Name of the rows in messages.
        remedy: What messages advise if the file does not fit.
        head: The first line; None for a file without one. A file with a head and no rows fits every head.
        gains: A setting of the head that is a mapping and may gain entries.
        load: From the keys and values of a line to a row.
        options: Options of `json.dumps`.

    Attributes:
        rows: The rows in the file when it is opened, without a cut-off last line.

    Raises:
        UserError: The file holds rows of other settings (the first one is named), or something else.
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
        **options: Any,
    ) -> None:
        self.path, self._options, self._clean = path, {"allow_nan": False, **options}, False
        lines = read_lines(path) if path.exists() else []
        try:
            held = dict(lines[0]) if head is not None and lines else None
            self.rows = [load(**line) for line in lines[head is not None :]]
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is no file of {what} ({error!r}): {remedy}") from error
        if head is not None and held is not None and self.rows:
            if gains:
                old, new = held.get(gains, {}), head[gains]
                held, head = {**held, gains: new | old}, {**head, gains: old | new}
            if difference := first_difference(held, head):
                raise UserError(f"{path} holds {what} with {difference}: {remedy}")
        self._head = [] if head is None else [dict(head)]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows; they are on the disk when this returns.

        Raises:
            UserError: the disk does not take them.
        """
        if not self._clean:
            self.replace(read_lines(self.path)[len(self._head) :] if self.path.exists() else [])
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._text(rows))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}; make room, and run the same command again") from error

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the head and these rows in place of what the file holds, whole or not at all.

        Raises:
            UserError: the disk does not take them; the file is as it was.
        """
        write_file(self.path, self._text([*self._head, *rows]).encode())
        self._clean = True

    def _text(self, rows: Iterable[Mapping[str, Any]]) -> str:
        return "".join(json.dumps(row, **self._options) + "\n" for row in rows)
