"""The rows in a run's metrics.jsonl, apart from damaged lines: cut, no JSON, no row, or a second one of a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from editr1.errors import UserError, parse_json, tell
from editr1.files import write_file
from editr1.training.alarms import DRIFTS
from editr1.training.run_files import DAMAGED
from editr1.training.step_row import StepRow

Number = float | None
BOM = b"\xef\xbb\xbf"


class Row(BaseModel):
    """What alarms and reports read of a row."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Number | list[str] | dict[str, Number | list[str]]]

    step: int = Field(ge=1)
    reward_mean: Number
    reward_by_task: dict[str, Number]
    unscored: int
    groups_kept: int
    dropped: dict[str, int]
    seconds: dict[str, float]
    drift: dict[str, float] = dict.fromkeys(DRIFTS, 0.0)


def read_metrics(file: Path) -> tuple[list[StepRow], dict[int, bytes]]:
    """The rows in the order of the steps, and the damaged lines by number. Of two rows of a step the later one counts.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        lines = file.read_bytes().removeprefix(BOM).split(b"\n") if file.exists() else []
    except OSError as error:
        raise UserError(f"cannot read {file}: {error}") from error
    rows, places, damaged = dict[int, StepRow](), dict[int, int](), dict[int, bytes]()
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        if (row := row_of(line)) is None:
            damaged[number] = line
            continue
        if (step := row["step"]) in rows:
            damaged[places[step]] = lines[places[step]]
        rows[step], places[step] = row, number
    return [rows[step] for step in sorted(rows)], {number + 1: damaged[number] for number in sorted(damaged)}


def restore_metrics(file: Path, step: int) -> list[StepRow]:
    """The rows of a run that goes on after a step; damaged lines are told and moved to a file of their own."""
    rows, damaged = read_metrics(file)
    if damaged:
        aside = file.with_name(DAMAGED)
        before = aside.read_bytes() if aside.exists() else b""
        write_file(aside, before + b"".join(line + b"\n" for line in damaged.values()))
        write_file(file, "".join(json.dumps(row) + "\n" for row in rows).encode())
        tell(f"warning: {in_words(file, damaged)} kept in {DAMAGED}")
    rows = [row for row in rows if row["step"] <= step]
    if len(rows) < step:
        tell(f"warning: {file} lacks the rows of {step - len(rows)} of {step} steps; the run goes on without them")
    return rows


def in_words(file: Path, damaged: dict[int, bytes]) -> str:
    """How many lines are damaged, and which is the first, as the beginning of a sentence."""
    one = len(damaged) == 1
    return f"{file}:{next(iter(damaged))}: {len(damaged)} damaged line{'' if one else 's'} {'is' if one else 'are'}"


def row_of(line: bytes) -> StepRow | None:
    """The row that a line of metrics.jsonl is; None if it is damaged."""
    try:
        tree: dict[str, Any] = parse_json(line.decode(), "a row", allow_nan=True)
        return tree if Row.model_validate(tree).drift.keys() >= DRIFTS.keys() else None
    except (UserError, ValueError):
        return None
