"""Which lines repeat an earlier one: a hash of 16 bytes and a number of 8 are kept of each."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator

import numpy as np


def same_words(text: str) -> str:
    """A text without what does not change an instruction: spaces at its ends, double ones, and case."""
    return " ".join(text.split()).casefold()


class Repeats:
    """Contents by line, to find those that are there twice."""

    def __init__(self) -> None:
        self._digests, self._lines = bytearray(), array("Q")

    def add(self, line: int, *content: str) -> None:
        """Remember a line; lines come in rising order."""
        self._digests += hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
        self._lines.append(line)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(line, the first line with the same content) of all that repeat one, in rising order."""
        if not self._lines:
            return
        lines = np.frombuffer(self._lines, np.uint64)
        words = np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, 2)
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable: equal contents stay in the order of their lines
        words = words[order]
        new = np.concatenate([[True], (words[1:] != words[:-1]).any(axis=1)])
        first = np.empty_like(order)
        first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
        for place in np.flatnonzero(first != np.arange(len(first))):
            yield int(lines[place]), int(lines[first[place]])
