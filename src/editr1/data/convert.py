"""From every form of dataset to a folder with a data.jsonl, whose pictures are the bytes that they were."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from editr1.data.edited import PreferenceLine, VoteLine
from editr1.data.pictures import Picture, PictureError, picture_format
from editr1.data.samples import Item, StoredDataset
from editr1.errors import UserError, collect

PICTURES = "pictures"


def convert(dataset: StoredDataset, out: Path, faults: list[str], on_item: Callable[[], None]) -> int:
    """Write a dataset to a new folder, whole or not at all; equal pictures become one file, named by its content.

    Args:
        dataset: The items.
        out: The folder, which must be empty or not there.
        faults: Receives one line for each picture that cannot be read. If there are any, nothing stays written.
        on_item: Called after each item.

    Returns:
        The number of pictures.

    Raises:
        UserError: The folder is not empty, or cannot be written.
    """
    out = out.absolute()
    refuse_full(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of one that was killed
    try:
        part.mkdir(parents=True)
        with (part / "data.jsonl").open("w", encoding="utf-8") as lines:
            for item in dataset.items:
                with collect(faults):
                    line = _line(item, part) | _origin(item, dataset.folder)
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                on_item()
        if not faults:
            part.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}; choose another folder, or make room") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sum(path.is_file() for path in out.glob(f"{PICTURES}/*/*"))


def refuse_full(out: Path) -> None:
    """Refuse a folder that is not empty, or that is a file."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out} is there already; choose an empty folder")


def _line(item: Item, folder: Path) -> dict[str, Any]:
    """The line of an item, whose pictures are written."""
    line, key, pictures = item
    source, *further = (_write(picture, key, folder) for picture in pictures)
    texts = line.model_dump(include={"instruction", "requirement", "task"})
    names = PreferenceLine.stored if isinstance(line, VoteLine) else line.stored  # both: the better edit is the first
    end = len(further) - len(names)
    edits, further = dict(zip(names, further[end:], strict=True)), further[:end]
    mask = (
        {} if line.mask is None else {"mask": further.pop() if isinstance(line.mask, str) else line.mask.model_dump()}
    )
    return {"source": source, **edits, **texts, "key": key} | ({"references": further} if further else {}) | mask


def _origin(item: Item, folder: Path) -> dict[str, str]:
    """What the source was made from, if the line says so, by the name that this picture has as a source of other items.

    It need not be there, as nothing reads it; then it keeps its name.
    """
    line, key, _ = item
    if line.origin is None:
        return {}
    try:
        return {"origin": _place(folder / line.origin, key)[0]}
    except PictureError:
        return {"origin": line.origin}


def _write(picture: Picture, key: str, folder: Path) -> str:
    """Write a picture, and return its path in the folder."""
    name, content = _place(picture, key)
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return name


def _place(picture: Picture, key: str) -> tuple[str, bytes]:
    """The path of a picture in a folder, which follows from its content, and its content."""
    kind = picture_format(picture, f"cannot read the picture {picture} of item {key!r}").lower().replace("jpeg", "jpg")
    with picture.open("rb") as file:
        content = file.read()
    name = hashlib.sha256(content).hexdigest()[:32]
    return f"{PICTURES}/{name[:2]}/{name}.{kind}", content
