"""All that is wrong with a dataset, in one pass over its file and in little memory: about 120 bytes an item.

Lines and pictures are read by the functions that training reads them by. Of a picture the header is read, and that the
file is whole; its bytes are hashed, so that a copy under another name is the same picture. Masks alone are decoded.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from editr1.data.checking.scripts import script_of
from editr1.data.forms import kind_of
from editr1.data.hashes import sha256_of
from editr1.data.lines import Fault, read_lines
from editr1.data.masks import open_mask
from editr1.data.pictures import PictureError, picture_size, upright_size
from editr1.data.repeats import Repeats, same_words
from editr1.data.samples import ItemLine, StoredDataset, file_of, key_of, locate
from editr1.errors import UserError, first_line, printable

SIDE_MIN = 32
"""Pixels of a picture's shorter side at least; editors work on patches of 16."""
RATIO_MAX = 8
"""Longer side by shorter side at most."""
BULK = 0.9
"""Share of the instructions in one script from which on another script is a fault."""
RARE, COMMON = 0.02, 0.6
"""Shares of a task that are worth a note."""
TASKS_MAX = 1000
"""Tasks that are counted one by one."""
BATCH = 1000
"""Instructions that a tokenizer gets at once."""
OTHERS = "(others)"

LongTexts = Callable[[Mapping[str, str]], Mapping[str, str]]
"""Why texts are too long for an editor, by the keys of those that are."""


@dataclass
class Counts:
    """What a dataset holds, as far as its lines can be read; `kinds` counts the faults by kind."""

    items: int = 0
    without_requirement: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, line: ItemLine) -> str | None:
        """Count an item, and return the script of its instruction."""
        self.items += 1
        self.without_requirement += not line.requirement.strip()
        self.tasks[line.task if line.task in self.tasks or len(self.tasks) < TASKS_MAX else OTHERS] += 1
        if script := script_of(line.instruction):
            self.scripts[script] += 1
        return script

    def notes(self) -> list[str]:
        """What may be meant so: rare and common tasks, and instructions in several scripts."""
        notes = []
        for task, count in self.tasks.most_common():
            share = count / self.items
            if len(self.tasks) > 1 and not RARE <= share <= COMMON:
                words = "most of what is learnt" if share > COMMON else "few to learn from"
                notes.append(f"task {printable(task)!r} has {share:.1%} of the items: {words}")
        if self.scripts and self.bulk is None:
            notes.append(f"instructions are in several scripts: {listed(self.scripts)}")
        return notes

    def summary(self) -> list[str]:
        """All counts in words: one line each of items and faults, and the notes."""
        items = [f"{self.items} items", listed(self.tasks)]
        items += [f"{self.without_requirement} without requirement"] * bool(self.without_requirement)
        found = f"{self.kinds.total()} faults: {listed(self.kinds)}" if self.kinds else "no faults"
        return ["; ".join(items), *(f"note: {note}" for note in self.notes()), found]

    @property
    def bulk(self) -> str | None:
        """The script of nearly all instructions; None if there is none."""
        script, count = max(self.scripts.items(), key=lambda item: item[1], default=("", 0))
        return script if script and count >= BULK * self.scripts.total() else None


def listed(counts: Counter[str], longest: int = 12) -> str:
    """Counts by falling number, as "add 3, remove 1"."""
    shown = [f"{printable(name)} {count}" for name, count in counts.most_common(longest)]
    return ", ".join(shown + [f"{len(counts) - longest} more"] * (len(counts) > longest))


def absurd(size: tuple[int, int]) -> tuple[str, str] | None:
    """Kind and words of what is wrong with the width and height of a picture that can be read."""
    short, long = sorted(size)
    name = f"{size[0]}x{size[1]} pixels"
    if short < SIDE_MIN:
        return "tiny", f"{name}; {SIDE_MIN} a side are the least that shows anything"
    if long > RATIO_MAX * short:
        return "narrow", f"{name}; one side is more than {RATIO_MAX} times the other"
    return None


def heldout_sources(dataset: StoredDataset) -> dict[str, str]:
    """The key of an item by the hash of its source picture, of held-out data.

    Raises:
        UserError: A picture cannot be read.
    """
    try:
        return {sha256_of(path): key for _, key, (path, *_) in dataset.items}
    except OSError as error:
        raise UserError(f"held-out data {dataset.folder}: {first_line(error)}") from error


class DataCheck:
    """One check of a dataset's folder.

    Args:
        folder: The folder.
        root: A folder that may hold pictures too, as `data.root`.
        long_texts: What an editor finds too long; None for the plain bound of all texts.
        heldout: Held-out items, as of `heldout_sources`.

    Attributes:
        counts: What was seen so far.
    """

    def __init__(
        self,
        folder: Path,
        root: Path | None = None,
        long_texts: LongTexts | None = None,
        heldout: Mapping[str, str] | None = None,
    ) -> None:
        self.file, self._kind = file_of(folder, kind_of(folder))
        self._folder, self._root, self._long_texts = folder.resolve(), root, long_texts
        self._heldout, self.counts = heldout or {}, Counts()
        self._keys, self._items = Repeats(), Repeats()
        self._scripts, self._lines, self._names = array("B"), array("Q"), list[str]()
        self._waiting: dict[str, str] = {}
        self._look = lru_cache(maxsize=2**16)(self._look_at)

    def run(self) -> Iterator[Fault]:
        """Every fault: those of single lines in their order, then those that show when lines are compared.

        Raises:
            UserError: The file cannot be read, or holds nothing.
        """
        for fault in self._faults():
            self.counts.kinds[fault.kind] += 1
            yield fault
        if not self.counts.items and not self.counts.kinds:
            raise UserError(f"{self.file} holds no item; write one JSON object per line")

    def _faults(self) -> Iterator[Fault]:
        for number, line in read_lines(self.file, self._kind, "the dataset"):
            if isinstance(line, Fault):
                yield line
                continue
            self._count(number, line)
            yield from self._pictures(number, line)
            if len(self._waiting) == BATCH:
                yield from self._long()
        yield from self._long()
        for number, first in self._keys.pairs():
            yield Fault(number, "repeated key", f"line {first} has this key too; keys must be unique")
        for number, first in self._items.pairs():
            yield Fault(number, "duplicate", f"the same pictures and instruction as line {first}")
        yield from self._foreign()

    def _count(self, number: int, line: ItemLine) -> None:
        self._keys.add(number, key_of(number, line))
        if self._long_texts is not None:
            self._waiting[str(number)] = line.instruction
        if script := self.counts.add(line):
            if script not in self._names:
                self._names.append(script)
            self._scripts.append(self._names.index(script))
            self._lines.append(number)

    def _pictures(self, number: int, line: ItemLine) -> Iterator[Fault]:
        """Faults of the pictures of a line; remembers the line by their content."""
        seen = [self._look(name) for name in (line.source, *line.references, *line.edits)]
        for kind, words in (fault for _, fault in seen if fault is not None):
            yield Fault(number, kind, words)
        hashes = [value for value, _ in seen if value is not None]
        if len(hashes) == len(seen):
            self._items.add(number, same_words(line.instruction), *hashes)
            yield from self._mask(number, line)
        if (key := self._heldout.get(seen[0][0] or "")) is not None:
            yield Fault(number, "held-out", f"its source picture is that of the held-out item {printable(key)!r}")

    def _mask(self, number: int, line: ItemLine) -> Iterator[Fault]:
        """What is wrong with the mask of a line whose pictures are right."""
        source = locate(self._folder, line.source, number, self._root)
        given = locate(self._folder, line.mask, number, self._root) if isinstance(line.mask, str) else line.mask
        if isinstance(given, Fault):
            yield given
        elif given is not None and not isinstance(source, Fault):
            try:
                open_mask(given, upright_size(source, f"the picture {line.source!r} cannot be read"), str(number))
            except UserError as error:
                yield Fault(number, "mask", str(error))

    def _look_at(self, name: str) -> tuple[str | None, tuple[str, str] | None]:
        """Hash of a picture, and kind and words of what is wrong with it; None each if there is none."""
        path = locate(self._folder, name, 0, self._root)
        if isinstance(path, Fault):
            return None, (path.kind, path.message)
        complaint = f"the picture {name[:200]!r}"
        try:
            fault = absurd(picture_size(path, f"{complaint} cannot be read", "; replace it or drop the line"))
            return sha256_of(path), fault and (fault[0], f"{complaint} has {fault[1]}")
        except PictureError as error:
            return None, (error.kind, str(error))
        except OSError as error:  # it is gone
            return None, ("broken", f"{complaint} cannot be read: {first_line(error)}")

    def _long(self) -> Iterator[Fault]:
        """The instructions among those that wait that are too long for the editor."""
        if self._long_texts is not None:
            for number, words in self._long_texts(self._waiting).items():
                yield Fault(int(number), "long", f"instruction: {words}")
        self._waiting.clear()

    def _foreign(self) -> Iterator[Fault]:
        """The instructions in another script than nearly all."""
        if (bulk := self.counts.bulk) is None:
            return
        scripts = np.frombuffer(self._scripts, np.uint8)
        for place in np.flatnonzero(scripts != self._names.index(bulk)):
            words = f"the instruction is in {self._names[scripts[place]]} script, nearly all others are in {bulk}"
            yield Fault(self._lines[place], "language", words)
