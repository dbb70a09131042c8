"""The same items in each form that is read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from editr1.data.pictures import png
from editr1.data.samples import ItemLine
from editr1.toy.world import ToyDataset

FORMS = ("jsonl", "parquet", "saved", "tar")
EDITS = ("chosen", "rejected", "target")
"""Pictures of stored edits, as far as rows have them."""


def toy_rows(count: int = 12) -> list[dict[str, Any]]:
    """Toy items, two of each source image, one with references; pictures are PNG files as bytes."""
    items = [ToyDataset("rl", count, 0, "small")[index] for index in range(count)]
    rows: list[dict[str, Any]] = [
        {
            "key": f"toy-{index}",
            "source": png(items[index // 2 * 2].source),
            "instruction": item.instruction,
            "requirement": item.requirement,
            "task": item.task,
            "references": [],
        }
        for index, item in enumerate(items)
    ]
    rows[1]["references"] = [rows[2]["source"], rows[4]["source"]]
    return rows


def edited_rows(kind: type[ItemLine]) -> list[dict[str, Any]]:
    """Toy items with stored edits of a kind."""
    pictures = [png(ToyDataset("rl", 12, 1)[index].source) for index in range(12)]
    return [
        row | {name: pictures[(index + place) % 12] for place, name in enumerate(EDITS) if name in kind.stored}
        for index, row in enumerate(toy_rows())
    ]


def write_form(form: str, rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Write items in two files where the form allows it; what `data.path` is."""
    folder.mkdir(parents=True)
    if form == "jsonl":
        return write_jsonl(rows, folder)
    half = len(rows) // 2
    parts = [rows[:half], rows[half:]]
    if form == "saved":
        import datasets

        datasets.Dataset(arrow_table(rows)).save_to_disk(str(folder / "set"), num_shards=2)
        return folder / "set"
    for number, part in enumerate(parts):
        if form == "parquet":
            parquet.write_table(arrow_table(part), folder / f"train-{number:05}.parquet", row_group_size=4)
        else:
            write_shard(part, folder / f"{number:05}.tar")
    return folder


def write_jsonl(rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Equal pictures are one file."""
    names: dict[bytes, str] = {}
    for row in rows:
        masks = [row["mask"]] if isinstance(row.get("mask"), bytes) else []
        for picture in (row["source"], *row["references"], *masks, *_edits(row).values()):
            (folder / names.setdefault(picture, f"{len(names)}.png")).write_bytes(picture)
    lines = []
    for row in rows:
        single = {name: names[picture] for name, picture in {"source": row["source"], **_edits(row)}.items()}
        lines.append({**row, **single, "references": [names[one] for one in row["references"]]})
    for line in lines:
        if isinstance(line.get("mask"), bytes):
            line["mask"] = names[line["mask"]]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _edits(row: dict[str, Any]) -> dict[str, bytes]:
    return {name: row[name] for name in EDITS if name in row}


def arrow_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A table with pictures as `datasets` stores them."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        "source": pa.array([_image(row["source"]) for row in rows], image),
        "references": pa.array([[*map(_image, row["references"])] for row in rows], pa.list_(image)),
    }
    if any("mask" in row for row in rows):
        columns["mask"] = pa.array([row["mask"] and _image(row["mask"]) for row in rows], image)
    columns |= {name: pa.array([_image(row[name]) for row in rows], image) for name in _edits(rows[0])}
    return pa.table(columns | {name: [row[name] for row in rows] for name in rows[0] if name not in columns})


def _image(content: bytes | None) -> dict[str, Any]:
    return {"bytes": content, "path": "picture.png"}


def write_shard(rows: Sequence[dict[str, Any]], file: Path) -> None:
    members: list[tuple[str, bytes]] = []
    for row in rows:
        texts: dict[str, Any] = {name: row[name] for name in ("instruction", "requirement", "task") if name in row}
        texts |= {"mask": row["mask"]} if isinstance(row.get("mask"), dict) else {}
        members += [(f"{row['key']}.json", json.dumps(texts).encode()), (f"{row['key']}.png", row["source"])]
        members += [(f"{row['key']}.{name}.png", one) for name, one in _edits(row).items()]
        members += [(f"{row['key']}.reference{i}.png", one) for i, one in enumerate(row["references"])]
        if isinstance(row.get("mask"), bytes):
            members.append((f"{row['key']}.mask.png", row["mask"]))
    write_tar(members, file)


def write_tar(members: Sequence[tuple[str, bytes]], file: Path) -> None:
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
