"""A data.jsonl of so many lines that a run cannot read all of them before its first step.

What is held is where lines begin, 24 bytes for each. A line is read and checked, and its pictures are looked for, when
its item is asked for; those of a fixed random sample are when the dataset is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from editr1.data.line_index import LineIndex
from editr1.data.lines import LINE_MAX, Fault, check_line
from editr1.data.repeats import Repeats
from editr1.data.samples import Item, ItemLine, StoredDataset, key_of, locate, refuse_root
from editr1.data.seeds import derive_seed
from editr1.errors import UserError, collect

KNOWN = 2**16
"""Pictures whose place is remembered while lines are read."""


class LongItems(Sequence[Item]):
    """The items of a file, each read anew when it is asked for; a UserError names the number of a line that is wrong.

    Args:
        folder: The folder in which pictures are named by paths.
        index: The lines of the file.
        kind: Their form.
        root: A folder that may hold pictures too.
    """

    def __init__(self, folder: Path, index: LineIndex, kind: type[ItemLine], root: Path | None) -> None:
        self._folder, self._index, self._kind, self._root = folder, index, kind, root

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return self.read(index, self._index.line(index))

    def read(self, index: int, raw: bytes | None) -> Item:
        """Item `index` from its line."""
        number = int(self._index.numbers[index])
        text = None if raw is None else raw.decode(errors="surrogateescape")
        line = check_line(number, text if text is None or len(text) <= LINE_MAX else None, self._kind)[0]
        if isinstance(line, Fault):
            raise self._wrong(line)
        pictures = list[Path]()
        for name in line.pictures:
            place = locate(self._folder, name, number, self._root)
            if isinstance(place, Fault):
                raise self._wrong(place)
            pictures.append(place)
        return line, key_of(number, line), pictures

    def _wrong(self, fault: Fault) -> UserError:
        return UserError(f"{self._index.file}:{fault.line}: {fault.message}")


class LongDataset(StoredDataset):
    """The items of a long data.jsonl.

    Args:
        folder: Its folder.
        index: Its lines.
        kind: Their form.
        most: Size of the sample.
        root: A folder that may hold pictures too, as of `JsonlDataset`.
        faults: Receives one line for each line of the sample that is wrong; None raises the first.

    Raises:
        UserError: A line of the sample is wrong.
    """

    items: LongItems

    def __init__(
        self,
        folder: Path,
        index: LineIndex,
        kind: type[ItemLine],
        most: int,
        root: Path | None = None,
        faults: list[str] | None = None,
    ) -> None:
        self.folder, self.file, self.root = folder.resolve(), index.file, root
        self.items, self._index, self._kind = LongItems(self.folder, index, kind, root), index, kind
        self._sample = list[Item]()
        with collect(faults):
            refuse_root(folder, root)
            for place in sample_of(len(index), most):
                with collect(faults):
                    self._sample.append(self.items[place])

    @property
    def sample(self) -> list[Item]:
        return self._sample

    @property
    def sha256(self) -> str:  # type: ignore[override]
        """Of the file as it was when it was opened."""
        return self._index.sha256

    @cached_property
    def sources(self) -> NDArray[np.uint64]:
        """As of any dataset, as 64 bits of a hash each; of the lines little more than this is looked at.

        Raises:
            UserError: A line has no source.
        """
        field = self._kind.model_fields["source"].alias or "source"
        known = lru_cache(maxsize=KNOWN)(self._hash)
        return np.fromiter((known(name) for name in self._names(field)), np.uint64, len(self))

    def faults(self) -> Iterator[str | None]:
        """What is wrong with each line, or None; then one line for each key that is there twice."""
        keys = Repeats()
        for place, raw in enumerate(self._index.lines()):
            yield self._fault(place, raw, keys)
        for line, first in keys.pairs():
            yield f"{self.file}:{line}: line {first} has this key too; keys must be unique"

    def _fault(self, place: int, raw: bytes | None, keys: Repeats) -> str | None:
        """What is wrong with a line; the key of a right one joins `keys`."""
        try:
            _, key, _ = self.items.read(place, raw)
        except UserError as error:
            return str(error)
        keys.add(int(self._index.numbers[place]), key)
        return None

    def _names(self, field: str) -> Iterator[str]:
        """The source of each line, or its origin, as the line names it."""
        for place, raw in enumerate(self._index.lines()):
            try:
                values = from_json(raw or b"")
                name = values.get("origin") or values[field]
            except (ValueError, AttributeError, KeyError):
                name = None
            if not isinstance(name, str) or "\0" in name:
                line, _, _ = self.items.read(place, raw)  # which tells what is wrong
                name = line.origin or line.source
            yield name

    def _hash(self, name: str) -> int:
        path = os.fsencode(os.path.realpath(self.folder / name))
        return int.from_bytes(blake2b(path, digest_size=8).digest(), "big")


def sample_of(size: int, most: int) -> list[int]:
    """A choice of at most `most` places below `size` that follows from the size alone."""
    order = np.random.default_rng(derive_seed(0, "sample")).permutation(size)
    return np.sort(order[:most]).tolist()
