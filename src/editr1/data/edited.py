"""Items with edits that are on the disk already, to train on without making any: preferences, and pairs.

A preference is an item with two edits, of which one is better; a pair has one edit, the target. Preferences may also
be the votes that `editr1 judge arena` writes: they are read as they are, and ties are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from editr1.data.hashes import sha256_of
from editr1.data.lines import checked_lines
from editr1.data.pictures import Embedded
from editr1.data.samples import ItemLine, JsonlDataset, Sources
from editr1.errors import UserError

VOTES = "votes.jsonl"
"""Name that `editr1 judge arena` gives its file by default."""


class PreferenceLine(ItemLine):
    """One line of a `data.jsonl` with two edits of the source."""

    stored: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    chosen: str = Field(min_length=1)
    rejected: str = Field(min_length=1)


class PairLine(ItemLine):
    """One line of a `data.jsonl` with the edit that the instruction asks for."""

    stored: ClassVar[tuple[str, ...]] = ("target",)

    target: str = Field(min_length=1)


EDITED: tuple[type[ItemLine], ...] = (PreferenceLine, PairLine)
"""The forms of a `data.jsonl` with stored edits."""


class VoteLine(ItemLine):
    """One line of a file of votes, as of `editr1 judge arena`; further keys are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)
    stored: ClassVar[tuple[str, ...]] = ("edit_a", "edit_b")

    edit_a: str = Field(min_length=1)
    edit_b: str = Field(min_length=1)
    preference: Literal["a", "b", "tie"]

    @property
    def edits(self) -> list[str]:
        """The better edit, then the worse."""
        return [self.edit_b, self.edit_a] if self.preference == "b" else [self.edit_a, self.edit_b]


class VotesDataset(JsonlDataset):
    """The votes in a file, ties left out; arguments and errors as of `JsonlDataset`, of a file in place of a folder."""

    def __init__(self, file: Path, root: Path | None = None, faults: list[str] | None = None) -> None:
        self._votes = file
        super().__init__(file.parent, root, faults, VoteLine)
        if not self.items and not faults:
            raise UserError(f"{file} holds no vote for one of two edits; ties are left out")

    def _file(self, folder: Path, kind: type[ItemLine]) -> tuple[Path, type[ItemLine]]:
        return self._votes, kind

    def _lines(self, faults: list[str] | None) -> Iterator[tuple[int, ItemLine]]:
        for number, line in checked_lines(self.file, VoteLine, "the votes", faults):
            if line.preference != "tie":
                yield number, line

    @property
    def sources(self) -> Sources:
        """The source image of each item by its content: the arena writes one file for each vote."""
        return [str(source) if isinstance(source, Embedded) else sha256_of(source) for _, _, (source, *_) in self.items]


def votes_file(path: Path) -> Path | None:
    """The file of votes that a path names: itself, or one of the arena's name in a folder without a data.jsonl."""
    if path.suffix == ".jsonl" and path.is_file():
        return path
    return path / VOTES if (path / VOTES).is_file() and not (path / "data.jsonl").is_file() else None
