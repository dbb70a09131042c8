"""The items to edit: one item, a dataset in a folder with a `data.jsonl`, and the order in which a run visits items.

An item is a source image, an instruction, and a requirement by which an edit is judged. The order follows from the
run's seed (`data/seeds.py`), so that a step does not depend on earlier draws.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from editr1.data.lines import Fault, checked_lines
from editr1.data.masks import Boxes, Given, open_mask
from editr1.data.pictures import Embedded, Picture, PictureError, picture_file, read_picture
from editr1.data.plain_text import fault_of, plain, unreadable
from editr1.data.seeds import derive_seed
from editr1.errors import UserError, collect, printable

REMEDY = "put it into the folder, or set data.root (--root of eval data, data check) to a folder that holds it"


@dataclass(frozen=True)
class EditSample:
    """One item of a dataset: the unit by which edits are grouped (never by instruction text).

    Pictures are Pillow's. Its texts go into prompts of editors and judges: what looks like a control token is parted
    (`data/plain_text.py`). What is no picture, and a text that is too long, is a UserError.

    Attributes:
        key: Name that is unique in its dataset and stable between runs.
        source: Image to edit, RGB.
        instruction: The edit in words.
        requirement: One sentence for the judge about what a right edit shows; may be empty.
        task: Task type by which metrics and tables are split, such as "add" or "remove".
        references: Further source images that the instruction mentions, RGB, for editors that take several.
        mask: What the edit may change of the source (`data/masks.py`); None if that is not known. Editor and judge do
            not see it.
    """

    key: str
    source: Image
    instruction: str
    requirement: str = ""
    task: str = "edit"
    references: tuple[Image, ...] = ()
    mask: Image | None = None

    def __post_init__(self) -> None:
        masks = () if self.mask is None else (self.mask,)
        images: tuple[object, ...] = (self.source, *self.references, *masks)
        for image in images:
            if not isinstance(image, Image):
                kind = type(image).__name__
                raise UserError(
                    f"item {self.key!r}: a picture is {kind}, not a Pillow image; open it: Image.open(path)"
                )
        for name in ("instruction", "requirement"):
            if fault := fault_of(getattr(self, name)):
                raise UserError(f"item {self.key!r}: {name}: {fault}; change it, or leave the item out")
            object.__setattr__(self, name, plain(getattr(self, name)))


@runtime_checkable
class EditDataset(Protocol):
    """Anything with a length and an `EditSample` per index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> EditSample: ...


class ItemLine(BaseModel):
    """One line of `data.jsonl`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    stored: ClassVar[tuple[str, ...]] = ()
    """Names of the keys with pictures of stored edits (`edited.py`)."""

    source: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    requirement: str = ""
    task: str = Field(default="edit", min_length=1)
    key: str | None = Field(default=None, min_length=1)
    references: list[str] = []
    mask: Given | None = None
    origin: str | None = Field(default=None, pattern=r"^[^\x00]+$")

    @property
    def edits(self) -> list[str]:
        """The paths of its stored edits."""
        return [getattr(self, name) for name in self.stored]

    @field_validator("instruction", "requirement")
    @classmethod
    def _fits(cls, text: str, info: ValidationInfo) -> str:
        if fault := fault_of(text):
            raise PydanticCustomError("characters" if unreadable(text) else "long", "{fault}", {"fault": fault})
        if info.field_name == "instruction" and not text.strip():
            raise PydanticCustomError("empty", "it is empty")
        return text

    @property
    def pictures(self) -> list[str]:
        """The pictures that it names: the source, the references, the mask if that is a picture, the stored edits."""
        return [self.source, *self.references, *([self.mask] if isinstance(self.mask, str) else []), *self.edits]


class _ReleasedLine(ItemLine):
    """One line of a `train_metadata.jsonl` of Edit-R1's released code."""

    model_config = ConfigDict(extra="ignore", strict=True)

    source: str = Field(min_length=1, alias="image")
    instruction: str = Field(min_length=1, alias="prompt")


FILES: dict[str, type[ItemLine]] = {"data.jsonl": ItemLine, "train_metadata.jsonl": _ReleasedLine}
"""The file of a dataset's folder and the form of its lines; the first that is there."""


Item = tuple[ItemLine, str, Sequence[Picture]]
"""What a line says, its key, and its pictures in the order of `ItemLine.pictures`."""


Sources = Sequence[Hashable] | NDArray[np.uint64]
"""The source image of each item; equal ones are the same image."""


class StoredDataset:
    """Items on the disk: their texts are held, and a picture is opened with its item.

    Attributes:
        folder: The folder in which pictures are named by paths.
        file: The file with the items, or the folder of several.
        items: Line, key and pictures of each item.
        sample: Those items that were checked when the dataset was opened: all, but of a long file (`long.py`).
        sha256: Hash of a long file; None if all items are in the sample.
    """

    folder: Path
    file: Path
    items: Sequence[Item]
    sha256: str | None = None

    @property
    def sample(self) -> Sequence[Item]:
        return self.items

    def __len__(self) -> int:
        return len(self.items)

    @property
    def sources(self) -> Sources:
        """The source image of each item: its file, or what an embedded one is known by; equal ones are the same.

        The source of an item with an `origin` was made from that file, and counts as it.
        """
        return [self._origin(line, source) for line, _, (source, *_) in self.items]

    def _origin(self, line: ItemLine, source: Picture) -> Hashable:
        if line.origin is not None:
            return Path(os.path.realpath(self.folder / line.origin))
        return source.content_key() if isinstance(source, Embedded) else source

    def checksum(self) -> str:
        """What keys and texts of the items are known by: 8 hexadecimal digits."""
        value = 0
        for line, key, _ in self.items:
            names = {"source", "references", *line.stored} | (set() if isinstance(line.mask, Boxes) else {"mask"})
            value = zlib.crc32(f"{key} {line.model_dump_json(exclude=names)}\n".encode(), value)
        return f"{value:08x}"

    def __getitem__(self, index: int) -> EditSample:
        """The item with its pictures, upright according to their EXIF data, in RGB."""
        line, key, pictures = self.items[index]
        further = 1 + len(line.references)
        source, *references = (_open(picture, key) for picture in pictures[:further])
        given = pictures[further] if isinstance(line.mask, str) else line.mask
        mask = None if given is None else open_mask(given, source.size, key)
        return EditSample(key, source, line.instruction, line.requirement, line.task, tuple(references), mask)

    def edits(self, index: int) -> list[Image]:
        """The stored edits of an item, opened likewise."""
        line, key, pictures = self.items[index]
        return [_open(picture, key) for picture in pictures[len(pictures) - len(line.stored) :]]

    @property
    def lines(self) -> list[ItemLine]:
        """The lines of the sample, in their order."""
        return [line for line, _, _ in self.sample]

    @property
    def instructions(self) -> dict[str, str]:
        """The instruction of each item of the sample, by its key."""
        return {key: line.instruction for line, key, _ in self.sample}

    @property
    def pictures(self) -> dict[Picture, str]:
        """Every picture of the sample, with the key of an item that shows it."""
        return {picture: key for _, key, pictures in reversed(self.sample) for picture in pictures}


class JsonlDataset(StoredDataset):
    """A folder with pictures and a `data.jsonl`, one item per line.

    {"source", "instruction", "requirement", "task", "key", "references", "mask", "origin"}: `source` and the list
    `references` (further source images) are paths inside the folder. Only the first two are required; the default key
    is "line-<number>". `mask` says what the edit may change: the path of a picture, white there, or boxes
    (`masks.Boxes`). `origin` names the picture that the source was made from: a split keeps the items of both together.
    All lines are checked here; a picture is opened with its item. Without a `data.jsonl`, the `train_metadata.jsonl` of
    Edit-R1's released code is read: {"image", "prompt", "requirement"}.

    Args:
        folder: The folder.
        root: A folder that may hold pictures too: they are named by absolute paths, or behind links; None for `folder`.
        faults: Receives one line for everything that is wrong; wrong lines are then left out. None raises the first.
        kind: Form of the lines.

    Raises:
        UserError: A line is wrong (the message names file and number), a path leaves the folder, or a picture is
            missing.
    """

    items: list[Item]

    def __init__(
        self,
        folder: Path,
        root: Path | None = None,
        faults: list[str] | None = None,
        kind: type[ItemLine] = ItemLine,
    ) -> None:
        self.folder, self.root = folder.resolve(), root
        self.file, self._kind = self._file(folder, kind)
        self.items = []
        with collect(faults):
            refuse_root(folder, root)
            self._read(faults)
            if not self.items and not faults:
                raise UserError(f"{self.file} holds no item; write one JSON object per line")

    def checksum(self) -> str:
        """As of any dataset, from the file as it is."""
        return f"{zlib.crc32(self.file.read_bytes()):08x}"

    def _file(self, folder: Path, kind: type[ItemLine]) -> tuple[Path, type[ItemLine]]:
        """The file with the lines, and their form."""
        return file_of(folder, kind)

    def _lines(self, faults: list[str] | None) -> Iterable[tuple[int, ItemLine]]:
        """The right lines that are items, each with its number."""
        return checked_lines(self.file, self._kind, "the dataset", faults)

    def _read(self, faults: list[str] | None) -> None:
        """Read the lines; of those whose key an earlier one has, the first is told."""
        keys: dict[str, int] = {}
        repeated = False
        for number, line in self._lines(faults):
            key = key_of(number, line)
            if keys.setdefault(key, number) == number:
                places = [locate(self.folder, name, number, self.root) for name in line.pictures]
                paths = [place for place in places if isinstance(place, Path)]
                if len(paths) == len(places):
                    self.items.append((line, key, paths))
                self._tell([place for place in places if isinstance(place, Fault)], faults)
            elif not repeated:
                repeated = True
                words = f"line {keys[key]} has the key {printable(key)!r} too; keys must be unique"
                self._tell([Fault(number, "repeated key", words)], faults)

    def _tell(self, wrong: Iterable[Fault], faults: list[str] | None) -> None:
        for fault in wrong:
            with collect(faults):
                raise UserError(f"{self.file}:{fault.line}: {fault.message}")


def refuse_root(folder: Path, root: Path | None) -> None:
    """A UserError if a folder that may hold the pictures of `folder` is not there."""
    if root is not None and not root.is_dir():
        raise UserError(f"root {root}: there is no such folder; leave it out if all pictures are in {folder}")


def file_of(folder: Path, kind: type[ItemLine] = ItemLine) -> tuple[Path, type[ItemLine]]:
    """The file of a dataset's folder, and the form of its lines; those of stored edits are in a data.jsonl."""
    kinds = FILES if kind is ItemLine else {"data.jsonl": kind}
    name = next((name for name in kinds if (folder / name).is_file()), "data.jsonl")
    return folder / name, kinds[name]


def key_of(number: int, line: ItemLine) -> str:
    """The key of an item, by default its line's."""
    return line.key or f"line-{number}"


def locate(folder: Path, name: str, number: int, root: Path | None) -> Path | Fault:
    """The file of a picture that line `number` names, or why it has none."""
    try:
        return picture_file(folder, name, str(number), root, remedy=REMEDY)
    except PictureError as error:
        return Fault(number, error.kind, str(error).removeprefix(f"{number}: "))


def _open(picture: Picture, key: str) -> Image:
    return read_picture(picture, f"cannot read the picture {picture} of item {key!r}", "; replace it or drop the line")


@dataclass(frozen=True)
class GroupSampler:
    """The items of each step. A run visits items in epochs; each is a permutation that follows from (seed, epoch).

    Attributes:
        size: Items in the dataset, at least 1.
        groups_per_step: Items per step.
        seed: Seed of the run.
    """

    size: int
    groups_per_step: int
    seed: int

    def draw(
        self, place: int, banned: AbstractSet[int] = frozenset(), count: int | None = None
    ) -> tuple[list[int], int]:
        """The dataset indices of a step's groups, and the place of the next step; an epoch may end inside a step.

        Args:
            place: Items of the epochs before this step, banned ones included; step s is at s * groups_per_step if none
                is banned.
            banned: Items to pass over.
            count: Number of groups; None for `groups_per_step`.

        Raises:
            UserError: All items are banned.
        """
        count = self.groups_per_step if count is None else count
        if len(banned) >= self.size:
            raise UserError(
                f"all {self.size} items are solved, so data.ban_solved leaves none to draw: training is done; use more "
                "or harder items, or a higher algorithm.tau_mu"
            )
        items: list[int] = []
        while len(items) < count:
            epoch, start = divmod(place, self.size)
            for item in map(int, self._permutation(epoch)[start:]):
                place += 1
                items += [] if item in banned else [item]
                if len(items) == count:
                    break
        return items, place

    def _permutation(self, epoch: int) -> np.ndarray:
        return _permutation(derive_seed(self.seed, "epoch", epoch), self.size)


@lru_cache(maxsize=1)
def _permutation(seed: int, size: int) -> np.ndarray:
    """Kept for the next step: of a million items it takes longer than a step's other bookkeeping."""
    return np.random.default_rng(seed).permutation(size)
