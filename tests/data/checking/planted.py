"""A dataset without a fault, and one with 25 planted ones, each with its line and kind."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from editr1.toy.world import ToyDataset

GOOD = 40
"""Items without a fault, before the wrong ones."""


def export_toy(folder: Path, size: int, seed: int = 0) -> Path:
    """Items of the toy world as a folder with a data.jsonl."""
    folder.mkdir(parents=True)
    dataset, lines = ToyDataset("rl", size, seed), []
    for index in range(size):
        item = dataset[index]
        item.source.save(folder / f"{index}.png")
        texts = {"instruction": item.instruction, "requirement": item.requirement, "task": item.task}
        lines.append({"source": f"{index}.png", **texts, "key": item.key})
    write_lines(folder, lines)
    return folder


def write_lines(folder: Path, lines: list[Any]) -> None:
    """Objects as JSON; bytes as they are."""
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "data.jsonl").write_bytes(b"\n".join(texts) + b"\n")


def picture(path: Path, width: int = 64, height: int = 64) -> None:
    """A picture that is no other one."""
    seed = zlib.crc32(path.name.encode())
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def bomb(path: Path) -> None:
    """A PNG of a few bytes whose header speaks of 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def no_picture(path: Path) -> None:
    """A file of another sort."""
    path.write_text("no picture")


def cut(path: Path) -> None:
    """A picture without its second half."""
    picture(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def plant(folder: Path) -> list[tuple[int, str]]:
    """Write a dataset with faults, and return the line and kind of each."""
    export_toy(folder, GOOD)
    lines: list[Any] = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    planted: list[tuple[int, str]] = []

    def add(kind: str, line: dict[str, Any] | bytes, make: Callable[[Path], None] = picture) -> None:
        number = len(lines) + 1
        if isinstance(line, dict):
            line = {"source": f"line{number}.png", "instruction": f"Make number {number} red.", **line}
            if line["source"] == f"line{number}.png":
                make(folder / line["source"])
        lines.append(line)
        planted.append((number, kind))

    Image.new("RGB", (64, 64), "red").save(folder.parent / "secret.png")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "folder.png").mkdir()
    (folder / "copy.png").write_bytes((folder / lines[0]["source"]).read_bytes())
    add("json", b'{"source": "0.png", "instruction"')
    add("json", b"[" * 100_000)
    add("json", b'{"source": "0.png", "instruction": "Make it \xff red."}')
    add("json", b'{"source": "0.png", "source": "1.png", "instruction": "Make it red."}')
    add("form", b'["0.png", "Make it red."]')
    add("form", b'{"source": "0.png"}')
    add("form", {"instrution": "Make it red."})
    add("form", {"references": "0.png"})
    add("empty", {"instruction": ""})
    add("empty", {"instruction": " \t "})
    add("long", {"instruction": 400 * "very red "})
    add("characters", {"requirement": "It is red.\0"})
    add("missing", {"source": "nowhere.png"})
    add("missing", {"source": "folder.png"})
    add("missing", {"references": ["nowhere.png"]})
    add("outside", {"source": "../secret.png"})
    add("outside", {"source": "link.png"})
    add("broken", {}, no_picture)
    add("broken", {}, cut)
    add("bomb", {}, bomb)
    add("tiny", {}, lambda path: picture(path, 64, 5))
    add("narrow", {}, lambda path: picture(path, 1000, 40))
    add("repeated key", {"key": lines[3]["key"]})
    add("duplicate", {"source": "copy.png", "instruction": f" {lines[0]['instruction'].upper()}"})
    add("language", {"instruction": "Сделай небо красным."})
    write_lines(folder, lines)
    return planted
