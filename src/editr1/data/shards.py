"""Items in webdataset shards: .tar files in which neighbours of one name, up to its first dot, are one item.

`0001.json` holds the texts by their names in a data.jsonl; `0001.txt` is the instruction, or `0001.requirement.txt` the
text of that name. `0001.jpg` or `0001.source.jpg` is the source image, `0001.reference1.png`, `0001.reference2.png` are
further ones, and `0001.mask.png` is the mask, whose boxes may be in `0001.json` instead. `0001.chosen.jpg`,
`0001.rejected.jpg` and `0001.target.jpg` are stored edits. Other files are passed over, hidden ones too. The name is
the key of an item that has none.

What is held of an item are its texts, and where its pictures lie in the shard: they are read with it. Nothing is
unpacked to the disk.
"""

from __future__ import annotations

import itertools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.data.pictures import SUFFIXES, Embedded
from editr1.data.plain_text import fault_of
from editr1.data.rows import TEXTS, Row, RowsDataset, named
from editr1.data.samples import ItemLine
from editr1.errors import UserError, first_line, parse_json

ENDING = "|".join(sorted(suffix.lstrip(".") for suffix in SUFFIXES))
ROLES = r"source|image|mask|chosen|rejected|target|reference[\w-]*"
PICTURE = re.compile(rf"(?:(?P<name>{ROLES})\.)?(?:{ENDING})", re.IGNORECASE)
TEXT = re.compile(r"(?:(?P<name>instruction|prompt|requirement|task|key)\.)?txt", re.IGNORECASE)
LONGEST = 2**20
"""Bytes of a text at most."""
LARGEST = 2**30
"""Bytes of a picture at most."""
LOOKED_AT = 100
"""Files that show which pictures items have."""


@dataclass(frozen=True)
class ShardMember(Embedded):
    """A file in a shard."""

    file: Path
    name: str
    start: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def size(self) -> int:
        return self.length

    def part(self, start: int, stop: int) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.start + start)
            return file.read(stop - start)


class ShardDataset(RowsDataset):
    """The items of webdataset shards."""

    def _rows(self, file: Path) -> Iterator[Row]:
        for name, members in itertools.groupby(_members(file), lambda member: _split(member.name)[0]):
            yield _row(f"{file}: {name}", name, {_split(member.name)[1]: member for member in members}, self._kind)


def pictures_named(file: Path) -> set[str]:
    """What the first files of a shard are pictures of, such as "reference1" or "chosen", if their names say it.

    Raises:
        UserError: It cannot be read.
    """
    endings = (_split(member.name)[1] for member in itertools.islice(_members(file), LOOKED_AT))
    return {match["name"].lower() for ending in endings if (match := PICTURE.fullmatch(ending)) and match["name"]}


def _split(name: str) -> tuple[str, str]:
    """The name of the item, with its folder, and what comes after the first dot."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending


def _row(where: str, name: str, members: dict[str, ShardMember], kind: type[ItemLine]) -> Row:
    texts: dict[str, Any] = {}
    pictures: dict[str, ShardMember] = {}
    for ending, member in members.items():
        if match := PICTURE.fullmatch(ending):
            pictures[(match["name"] or "source").lower()] = member
        elif match := TEXT.fullmatch(ending):
            texts[(match["name"] or "instruction").lower()] = _text(member).strip()
        elif ending.lower() == "json":
            texts |= _object(member)
    source = named(pictures, "source")
    names = {field: found for field in TEXTS if (found := named(texts, field))}
    return Row(
        where,
        name,
        pictures[source] if source else None,
        [pictures[reference] for reference in sorted(pictures, key=_by_number) if reference.startswith("reference")],
        {field: texts[found] for field, found in names.items()},
        pictures.get("mask", texts.get("mask")),
        {field: pictures.get(field) for field in kind.stored},
    )


def _by_number(name: str) -> tuple[int, str]:
    """Sorts reference2 before reference10."""
    return len(name), name


def _text(member: ShardMember) -> str:
    if member.length > LONGEST:
        raise UserError(f"{member}: a text of {member.length:,} bytes, {LONGEST:,} at most; leave it out")
    try:
        return member.part(0, member.length).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{member}: {first_line(error)}; write it as UTF-8") from error


def _object(member: ShardMember) -> dict[str, Any]:
    value = parse_json(_text(member), str(member))
    if not isinstance(value, dict):
        raise UserError(f"{member}: it must be one JSON object, with an instruction")
    return value


def _members(file: Path) -> Iterator[ShardMember]:
    """The plain files in a shard that are not hidden, in their order.

    Raises:
        UserError: It is no tar file, compressed, cut short or damaged, or holds links or names that leave its folder.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it would hold all of them
                if info.isdir() or info.name.rpartition("/")[2].startswith("."):
                    continue
                _refuse(info, f"{file}: {info.name}")
                yield ShardMember(file, info.name, info.offset_data, info.size)
            _refuse_damage(file, tar.offset)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(
            f"cannot read {file}: {first_line(error)}; copy it again, and unpack what is compressed"
        ) from error


def _refuse(info: tarfile.TarInfo, where: str) -> None:
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise UserError(f"{where}: the name leaves the shard's folder; write the shard without it")
    if fault := fault_of(info.name):
        raise UserError(f"{where}: the name: {fault}; write the shard without it")
    if not info.isreg() or info.issparse():
        raise UserError(f"{where}: it is a link or no plain file; write the shard without it")
    if info.size > LARGEST:
        raise UserError(f"{where}: it has {info.size:,} bytes, {LARGEST:,} at most; write the shard without it")


def _refuse_damage(file: Path, end: int) -> None:
    """Refuse a shard without the mark of its end, where `tarfile` stops as if it were the end."""
    with file.open("rb") as content:
        content.seek(end)
        block = content.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise OSError(f"it is cut short or damaged at byte {end:,}")
