"""Benchmarks in their official layouts on disk, made of the toy world's held-out items."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.evaluation.benchmarks.gedit import TYPES as GEDIT_TYPES
from editr1.evaluation.benchmarks.imgedit import TYPES
from editr1.toy.world import ToyDataset


def imgedit_folder(folder: Path, items: int = 9) -> Path:
    """ImgEdit's basic suite; the toy world's nine tasks are its types."""
    entries = {}
    world = ToyDataset("heldout", items)
    for number in range(items):
        sample = world[number]
        path = folder / sample.task / f"{number:09d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.source.save(path)
        entries[str(1000 + number)] = {
            "id": f"{sample.task}/{path.name}",
            "prompt": sample.instruction,
            "edit_type": sample.task,
        }
    (folder / "basic_edit.json").write_text(json.dumps(entries))
    return folder


def gedit_folder(folder: Path, items: int = 11) -> Path:
    """GEdit as parquet: `items` a language, every other one in the intersection."""
    import pyarrow
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    world = ToyDataset("heldout", items)
    for number in range(items):
        sample = world[number]
        buffer = io.BytesIO()
        sample.source.save(buffer, "PNG")
        picture = {"bytes": buffer.getvalue(), "path": None}
        row = {
            "task_type": GEDIT_TYPES[number % len(GEDIT_TYPES)],
            "key": f"k{number}",
            "instruction": sample.instruction,
            "Intersection_exist": number % 2 == 0,
            "input_image": picture,
            "input_image_raw": picture,
        }
        rows += [{**row, "instruction_language": language} for language in ("en", "cn")]
    (folder / "data").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, folder / "data/train-00000-of-00001.parquet", row_group_size=4)
    return folder


def plain_imgedit_folder(folder: Path, prompts: bool = False) -> Path:
    """A folder in the official layout: two items a type."""
    entries = {}
    for number in range(2 * len(TYPES)):
        kind = TYPES[number % len(TYPES)]
        path = folder / kind / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (10 * number, 0, 0)).save(path)
        entries[str(number)] = {"id": f"{kind}/{number}.jpg", "prompt": f"Edit {number}.", "edit_type": kind}
    (folder / "basic_edit.json").write_text(json.dumps(entries))
    if prompts:
        text = (
            "Rate.\n{}: A number from 1 to 5.\nB b: A number from 1 to 5.\nC & c: A number from 1 to 5.\n<edit_prompt>"
        )
        (folder / "prompts.json").write_text(json.dumps({kind: text.format(f"A {kind}") for kind in TYPES}))
    return folder
