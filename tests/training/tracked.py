"""What trackers have of a run, read back from the files that they write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32 * 1024, 7  # of a log of LevelDB, which a .wandb file is behind its own head of 7 bytes
FULL, FIRST = 1, 2


def wandb_records(file: Path) -> Iterator[bytes]:
    """The records in a .wandb file."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    place, record = HEAD, b""
    while place + HEAD <= len(content):
        if BLOCK - place % BLOCK < HEAD:
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        piece = content[place + HEAD : place + HEAD + size]
        record = piece if kind in (FULL, FIRST) else record + piece
        if kind not in (FIRST, FIRST + 1):
            yield record
        place += HEAD + size


def wandb_rows(out: Path) -> list[tuple[str, dict[str, Any]]]:
    """(id of the run, row) of all that W&B was told offline, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for file in sorted(out.glob("wandb/offline-run-*/*.wandb")):
        for content in wandb_records(file):
            record = Record.FromString(content)
            if record.HasField("history"):
                items = record.history.item
                row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
                rows.append((file.stem.removeprefix("run-"), row))
    return rows


def wandb_files(out: Path) -> list[Path]:
    """All files that W&B wrote."""
    return [path for path in out.glob("wandb/offline-run-*/**/*") if path.is_file()]
