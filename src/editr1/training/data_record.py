"""What the data of a run was when it began: a record beside the run, with which it is compared when the run goes on.

It holds of each item the key, a hash of its texts and a hash of each picture's content; the names of files do not
count, so that data may move. Of a long file (`data/long.py`) it holds the items of its sample, and the hash of its
bytes instead of the other items'. Texts cost nothing. Pictures are hashed where they are looked at anyway
(`data_check.py`), about 1 GB per second; one whose size and times on the disk are as they were is not read again. What
the check cannot look at before the first step, in 10 s, it looks at beside the training: a picture that has changed is
a warning then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import TypeAdapter, ValidationError

from editr1.data.pictures import Picture
from editr1.data.samples import ItemLine, StoredDataset
from editr1.errors import UserError, first_line, first_problem
from editr1.files import write_file
from editr1.training.data_check import REMEDY, PictureCheck

Item = tuple[str, str, list[str | None]]
"""Key, hash of the texts, hashes of the pictures; None for one that was not looked at yet."""


@dataclass(frozen=True)
class Record:
    """What a record says.

    Attributes:
        sample: All items, or those of the sample of a long file.
        items: Their number, if this is a sample.
        sha256: Hash of the long file.
    """

    sample: list[Item]
    items: int | None = None
    sha256: str | None = None


_items, _long = TypeAdapter(list[Item]), TypeAdapter(Record)


@dataclass
class DataRecord:
    """The record of a run.

    Attributes:
        file: Its place.
        dataset: The data now.
        pictures: The check of its pictures, which knows their hashes.
        begun: Whether the run writes it.
        lock: Held while it is written, as the check beside the training writes it too.
    """

    file: Path
    dataset: StoredDataset
    pictures: PictureCheck
    begun: bool = False
    lock: Any = field(default_factory=Lock)

    def begin(self) -> None:
        """Write it, once the folder of the run is this process's own."""
        with self.lock:
            self.begun = True
            self._write()

    def keep(self) -> None:
        """Write what is known by now, if the run has begun."""
        with self.lock:
            if self.begun:
                self._write()

    def _write(self) -> None:
        known = {path: next(iter(hashes)) for path, hashes in self.pictures.expected.items()}
        known |= self.pictures.hashes.copy()  # at once, as the other thread may add to it
        items = [(key, _hash(line), [known.get(path) for path in paths]) for line, key, paths in self.dataset.sample]
        text = "[" + ",\n".join(map(json.dumps, items)) + "]"
        if self.dataset.sha256 is not None:
            text = f'{{"sha256": "{self.dataset.sha256}", "items": {len(self.dataset)}, "sample": {text}}}'
        write_file(self.file, f"{text}\n".encode())

    def compare(self) -> None:
        """Compare the lines with those that the run began with; the check of the pictures compares these then.

        Raises:
            UserError: The lines have changed, or the record cannot be read.
        """
        before = read_record(self.file)
        self.pictures.expected = expected_hashes(before.sample, self.dataset)
        if words := differences(before, self.dataset):
            raise UserError(f"{self.dataset.file} is not what it was when the run began ({words}); {REMEDY}")


def read_record(file: Path) -> Record:
    """What a record says; a UserError if it is damaged."""
    try:
        text = file.read_bytes()
        return _long.validate_json(text) if text.startswith(b"{") else Record(_items.validate_json(text, strict=True))
    except (OSError, ValidationError) as error:
        words = first_problem(error) if isinstance(error, ValidationError) else first_line(error)
        raise UserError(
            f"{file} cannot be read ({words}), so nobody knows whether the data has changed; put a copy there, or go on"
            " all the same: data.changed=true"
        ) from error


def differences(before: Record, dataset: StoredDataset) -> str | None:
    """How the lines of a dataset differ from those of a record, in words; None if they do not.

    A long file is the same if its bytes are.
    """
    if before.sha256 is not None:
        words = f"its bytes are others, {before.items} items then, {len(dataset)} now"
        return None if before.sha256 == dataset.sha256 else words
    old = {key: texts for key, texts, _ in before.sample}
    new = {key: _hash(line) for line, key, _ in dataset.items}
    kept = [key for key in new if key in old]
    counts = {
        "added": [key for key in new if key not in old],
        "removed": [key for key in old if key not in new],
        "with other words": [key for key in kept if old[key] != new[key]],
        "moved": [key for key, was in zip(kept, (key for key in old if key in new), strict=True) if key != was],
    }
    return ", ".join(f"{len(keys)} {word}, first {keys[0]!r}" for word, keys in counts.items() if keys) or None


def expected_hashes(before: Sequence[Item], dataset: StoredDataset) -> dict[Picture, set[str]]:
    """The hashes that each picture of a dataset has in a record, as far as they are known; one, if it is as it was."""
    old, expected = {key: hashes for key, _, hashes in before}, dict[Picture, set[str]]()
    for _, key, paths in dataset.sample:
        for path, value in zip(paths, old.get(key, []), strict=False):
            if value is not None:
                expected.setdefault(path, set()).add(value)
    return expected


def _hash(line: ItemLine) -> str:
    """Hash of what a line says, without the names of its pictures."""
    texts: list[Any] = [line.instruction, line.requirement, line.task, len(line.references)]
    if line.mask is not None:
        texts.append("picture" if isinstance(line.mask, str) else line.mask.model_dump())
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]
