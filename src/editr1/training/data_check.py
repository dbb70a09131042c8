"""What is known about a dataset before a run: its counts, and pictures that cannot be read.

The headers of pictures are read, and for the record of a run (`data_record.py`) their bytes are hashed; pictures that
have not changed since an earlier check are not read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from editr1.data.checking.check import absurd
from editr1.data.hashes import sha256_of
from editr1.data.pictures import Picture, picture_size
from editr1.data.repeats import same_words
from editr1.data.samples import StoredDataset
from editr1.errors import NOT_JSON, UserError, first_line
from editr1.files import write_file

Size = tuple[int, int]
REMEDY = "put it back, or go on with the data as it is: data.changed=true"


class Headers:
    """Width, height and hash of pictures; those that are known are kept in a file, with the picture's size and times.

    The file is a cache: one that is damaged or cannot be written costs only time.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._entries: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, *NOT_JSON, TypeError):
            self._entries = {}

    def size(self, path: Picture, complaint: str, remedy: str) -> Size:
        """Width and height of a picture; arguments and errors as of `picture_size`."""
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]  # nobody can set the last one
        entry = self._entries.get(str(path))
        if not isinstance(entry, list) or entry[:3] != stamp or len(entry) != 6:
            entry = self._entries[str(path)] = [*stamp, *picture_size(path, complaint, remedy), None]
        return entry[3], entry[4]

    def content(self, path: Picture) -> str:
        """128 bits of the SHA-256 of a picture whose size was asked for."""
        entry = self._entries[str(path)]
        if entry[5] is None:
            entry[5] = sha256_of(path)[:32]
        return str(entry[5])

    def save(self) -> None:
        """Keep what is known."""
        with suppress(UserError):
            write_file(self.file, json.dumps(self._entries).encode())


def headers_of(folder: Path) -> Headers:
    """What is known about the pictures of a dataset, in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return Headers(cache / "editr1" / "pictures" / f"{name}.json")


class PictureCheck:
    """Looks at pictures one by one, in a random order: whatever part of them is seen is a sample of all.

    Args:
        pictures: Pictures, each with the key of an item that shows it.
        headers: What is known about them.
        hashed: Whether their contents are hashed too.

    Attributes:
        total: Number of pictures.
        seen: Number of pictures seen.
        sizes: Number of pictures that can be read, by width and height.
        faults: One line for each picture seen that cannot be read, or has another hash than expected.
        hashes: Hashes of the pictures seen.
        expected: The hashes that pictures should have, where that is known.
    """

    def __init__(self, pictures: Mapping[Picture, str], headers: Headers, hashed: bool = False) -> None:
        order = [*pictures.items()]
        random.Random(0).shuffle(order)  # its own generator: training draws nothing from it
        self.total, self.seen, self.sizes, self.faults = len(order), 0, Counter[Size](), list[str]()
        self.hashes, self.expected = dict[Picture, str](), dict[Picture, set[str]]()
        self._left, self._headers, self._hashed = iter(order), headers, hashed

    def run(self, enough: Callable[[], bool], on_picture: Callable[[str | None], None]) -> bool:
        """Go on with the pictures that are left, and say whether there are none.

        Args:
            enough: Whether to stop; asked after each picture.
            on_picture: Receives the fault of each picture, or None.
        """
        try:
            for path, key in self._left:
                on_picture(self._look(path, key))
                if enough():
                    return False
            return True
        finally:
            self._headers.save()

    def _look(self, path: Picture, key: str) -> str | None:
        self.seen += 1
        complaint, remedy = f"cannot read the picture {path} of item {key!r}", "; replace it or drop the line"
        try:
            self.sizes[self._headers.size(path, complaint, remedy)] += 1
            if self._hashed:
                self.hashes[path] = self._headers.content(path)
        except OSError as error:  # it is gone
            self.faults.append(f"{complaint}: {first_line(error)}{remedy}")
        except UserError as error:
            self.faults.append(str(error))
        else:
            if path not in self.expected or self.expected[path] == {self.hashes[path]}:
                return None
            self.faults.append(f"the picture {path} of item {key!r} is another one than when the run began; {REMEDY}")
        return self.faults[-1]


def describe(dataset: StoredDataset) -> str:
    """Counts in one line: items, tasks, empty requirements and repeated items; of a long file those of its sample."""
    lines = dataset.lines
    tasks = Counter(line.task for line in lines)
    counts = [f"{len(dataset)} items, of which {len(lines)} are counted"] if len(lines) < len(dataset) else []
    counts += [f"{len(lines)} items", ", ".join(f"{task} {count}" for task, count in tasks.most_common(8))]
    counts += [f"{len(tasks) - 8} more tasks"] if len(tasks) > 8 else []
    counts += [f"{empty} without requirement"] if (empty := sum(not line.requirement for line in lines)) else []
    counts += [f"{again} repeated"] if (again := repetitions(dataset)) else []
    return "; ".join(counts)


def repetitions(dataset: StoredDataset) -> int:
    """Number of items of the sample with the pictures and the instruction of an earlier one."""
    lines = dataset.lines
    return len(lines) - len({(line.source, *line.references, same_words(line.instruction)) for line in lines})


def describe_sizes(sizes: Counter[Size]) -> str:
    """The smallest and the largest picture seen, by area, and how many `editr1 data check` finds absurd."""
    small, large = (min(sizes, key=area, default=(0, 0)), max(sizes, key=area, default=(0, 0)))
    names = dict.fromkeys(f"{width}x{height}" for width, height in (small, large))
    odd = sum(count for size, count in sizes.items() if absurd(size))
    return f"{sum(sizes.values())} pictures of {' to '.join(names)}" + f"; {odd} tiny or narrow" * bool(odd)


def area(size: Size) -> int:
    """Number of pixels."""
    return size[0] * size[1]
