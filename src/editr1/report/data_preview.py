"""A dataset's folder -> a contact sheet: one page with no reference to anything outside it and no script."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from editr1.data.checking.check import Counts
from editr1.data.forms import kind_of
from editr1.data.lines import Fault, read_lines
from editr1.data.masks import open_mask
from editr1.data.pictures import read_picture
from editr1.data.samples import ItemLine, file_of, key_of, locate
from editr1.errors import UserError, collect
from editr1.report.environment import write_page
from editr1.report.thumbnails import small_url

REFERENCES = 3
"""Reference pictures that a card shows at most."""
TASKS = 20
"""Tasks in the table at most."""


@dataclass(frozen=True)
class Card:
    """An item as the page shows it: its pictures are data URLs, `faults` tells of those that cannot be shown.

    The source, on which its mask is outlined, is in `pictures` with stored edits beside it; each has words below it.
    """

    number: int
    key: str
    line: ItemLine
    pictures: list[tuple[str, str]]
    references: list[tuple[str, str]]
    faults: list[str]


def write_preview(folder: Path, out: Path, limit: int, root: Path | None = None) -> Path:
    """Write the page and return its path.

    Args:
        folder: The dataset.
        out: The page.
        limit: Items at most; of more, a random choice that is always the same.
        root: A folder that may hold pictures too, as `data.root`.

    Raises:
        UserError: The dataset cannot be read, no line holds an item, or the page cannot be written.
    """
    chosen, counts, wrong = choose_lines(folder, limit)
    tasks = counts.tasks.most_common(TASKS)
    return write_page(
        out,
        "preview.html.j2",
        folder=folder.resolve().name,
        counts=counts,
        tasks=tasks,
        other_tasks=len(counts.tasks) - len(tasks),
        wrong=wrong,
        cards=[card(folder.resolve(), number, line, root) for number, line in chosen],
    )


def choose_lines(folder: Path, limit: int) -> tuple[list[tuple[int, ItemLine]], Counts, Counter[str]]:
    """A random choice of the items by line, the counts of all, and the faults of lines by kind, in one pass."""
    file, kind = file_of(folder, kind_of(folder))
    rng, counts, wrong = random.Random(0), Counts(), Counter[str]()
    chosen: list[tuple[int, ItemLine]] = []
    for number, line in read_lines(file, kind, "the dataset"):
        if isinstance(line, Fault):
            wrong[line.kind] += 1
            continue
        counts.add(line)
        if len(chosen) < limit:
            chosen.append((number, line))
        elif (place := rng.randrange(counts.items)) < limit:  # each item is among the chosen with the same chance
            chosen[place] = number, line
    if not chosen:
        raise UserError(f"{file} holds no item that can be read; see editr1 data check {folder}")
    return sorted(chosen, key=lambda entry: entry[0]), counts, wrong


def card(folder: Path, number: int, line: ItemLine, root: Path | None) -> Card:
    """The card of an item."""
    faults = list[str]()

    def opened(names: Mapping[str, str]) -> Iterator[tuple[str, Image]]:
        """Words and picture of each that can be read, by words."""
        for words, name in names.items():
            path = locate(folder, name, number, root)
            if isinstance(path, Fault):
                faults.append(path.message)
                continue
            with collect(faults):
                yield words, read_picture(path, f"the picture {name[:200]!r} cannot be read")

    def shown_source(source: Image) -> tuple[str, str]:
        size, mask = f"{source.width} × {source.height}", None
        given = locate(folder, line.mask, number, root) if isinstance(line.mask, str) else line.mask
        if isinstance(given, Fault):
            faults.append(given.message)
        elif given is not None:
            with collect(faults):
                mask = open_mask(given, source.size, key_of(number, line))
        return size if mask is None else f"{size}, mask outlined", small_url(source, mask)

    sources = [shown_source(image) for _, image in opened({"": line.source})]
    edits = [(words, small_url(image)) for words, image in opened(dict(zip(line.stored, line.edits, strict=True)))]
    names = {f"reference {place}": name for place, name in enumerate(line.references[:REFERENCES], start=1)}
    references = [(words, small_url(image)) for words, image in opened(names)]
    return Card(number, key_of(number, line), line, sources + edits, references, faults)
