"""Where the lines of a long text file begin, found in one pass over its bytes: 24 bytes a line, and no Python object.

Lines are those of `lines.read_lines`: a newline of any system ends one, and empty ones are left out.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editr1.data.lines import LINE_MAX
from editr1.errors import UserError

PIECE = 2**23
"""Bytes that are read at once."""
LONGEST = 4 * LINE_MAX
"""Bytes of a line at most; its characters have up to four."""
BLOCK = 2**12
"""Lines that are read at once when all are."""
NEWLINE, RETURN, LAST_SPACE, FIRST_BEYOND_ASCII = 10, 13, 32, 128
MARK = b"\xef\xbb\xbf"
"""A byte order mark in UTF-8."""
Numbers = NDArray[np.int64]


class LineIndex:
    """The lines of a file that stays as it is: what is read is what was there when it was indexed.

    The file is held open. One that is replaced is read as it was, one that has grown too; one whose bytes have changed
    is refused.

    Attributes:
        file: The file.
        sha256: Its hash.
        numbers: The number of each line, from 1.

    Raises:
        UserError: The file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            if file.exists() and not file.is_file():
                raise OSError("it is no file")
            self._handle = os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._handle)
            self._stamp = self._stat()
            self._index()
        except OSError as error:
            raise UserError(f"cannot read the dataset {file}: {error}") from error

    def __len__(self) -> int:
        return len(self.numbers)

    def line(self, index: int) -> bytes | None:
        """A line with what ends it; None if it is longer than any line of text may be.

        Raises:
            UserError: The file has changed.
        """
        start, stop = int(self._starts[index]), int(self._stops[index])
        return None if stop - start > LONGEST else self._read(start, stop)

    def lines(self) -> Iterator[bytes | None]:
        """All lines, as `line` returns them; a block of them is read at once."""
        for first in range(0, len(self), BLOCK):
            starts, stops = (bounds[first : first + BLOCK].tolist() for bounds in (self._starts, self._stops))
            if stops[-1] - starts[0] > LONGEST:
                yield from map(self.line, range(first, first + len(starts)))
                continue
            block = self._read(starts[0], stops[-1])
            yield from (block[a - starts[0] : b - starts[0]] for a, b in zip(starts, stops, strict=True))

    def _index(self) -> None:
        ends, odd = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        digest, place, fresh = hashlib.sha256(), 0, True  # whether a line begins at `place`
        for piece in self._pieces():
            digest.update(piece)
            codes = np.frombuffer(piece, np.uint8)
            own = _ends(codes)
            begins = np.concatenate([np.zeros(int(fresh), np.int64), own[own < len(codes)]])
            odd.append(place + begins[(codes[begins] <= LAST_SPACE) | (codes[begins] >= FIRST_BEYOND_ASCII)])
            ends.append(place + own)
            fresh, place = bool(len(own) and own[-1] == len(codes)), place + len(codes)
        self._size, self.sha256 = place, digest.hexdigest()
        stops = np.concatenate([*ends, [place] * (not fresh)]).astype(np.int64)
        starts = np.concatenate([[0], stops])[: len(stops)].astype(np.int64)
        if os.pread(self._handle, len(MARK), 0) == MARK:
            starts[0] = len(MARK)
        keep = np.ones(len(stops), bool)
        for index in np.searchsorted(starts, np.concatenate(odd)).tolist():  # those that may be empty
            keep[index] = not self._is_empty(int(starts[index]), int(stops[index]))
        self._starts, self._stops = starts[keep], stops[keep]
        self.numbers: Numbers = np.flatnonzero(keep) + 1

    def _is_empty(self, start: int, stop: int) -> bool:
        return not os.pread(self._handle, stop - start, start).decode(errors="surrogateescape").strip()

    def _pieces(self) -> Iterator[bytes]:
        """The bytes of the file, in pieces that end inside of no newline."""
        place = 0
        while piece := os.pread(self._handle, PIECE, place):
            while piece.endswith(b"\r") and (more := os.pread(self._handle, 1, place + len(piece))):
                piece += more
            yield piece
            place += len(piece)

    def _read(self, start: int, stop: int) -> bytes:
        if self._stat() != self._stamp:
            self._refuse_change()
        return os.pread(self._handle, stop - start, start)

    def _refuse_change(self) -> None:
        """Go on if the file has only grown, or been touched."""
        stamp, digest = self._stat(), hashlib.sha256()
        for place in range(0, self._size, PIECE):
            digest.update(os.pread(self._handle, min(PIECE, self._size - place), place))
        if digest.hexdigest() != self.sha256:
            raise UserError(
                f"{self.file} has changed since this run read it; put it back, or go on with the data as it is: "
                "data.changed=true"
            )
        self._stamp = stamp

    def _stat(self) -> tuple[int, int]:
        stat = os.fstat(self._handle)
        return stat.st_size, stat.st_mtime_ns


def _ends(codes: NDArray[np.uint8]) -> Numbers:
    """Where the lines in a piece end: behind a newline, and behind a carriage return without one."""
    ends = codes == NEWLINE
    returns = codes == RETURN
    if returns.any():
        returns[:-1] &= ~ends[1:]
        ends |= returns
    return np.flatnonzero(ends) + 1
