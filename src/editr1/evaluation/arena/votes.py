"""The pairs to compare, and the votes: a JSONL that `editr1 judge agree` reads, rewritten whole after every vote."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editr1.data.pictures import png
from editr1.errors import UserError, printable
from editr1.evaluation.agreement.pairs import Preference
from editr1.evaluation.heldout.rows import EDITS, EditRow, image_path, open_image, read_rows
from editr1.files import JsonLines, file_name, write_file
from editr1.training.run_files import AFTER


@dataclass(frozen=True)
class Duel:
    """Two edits of one source, from equal noise.

    Attributes:
        key: item and number of the edit.
        instruction: the edit in words.
        task: the task type.
        source: file of the source image.
        a: file of the first run's edit.
        b: file of the second run's edit.
        swapped: whether the first run's edit is shown on the right.
    """

    key: str
    instruction: str
    task: str
    source: Path
    a: Path
    b: Path
    swapped: bool


def read_duels(run_a: Path, run_b: Path, seed: int = 0) -> list[Duel]:
    """All edits that both runs have, in an order and on sides that follow from the seed alone."""
    first, second = (_evaluation(run) for run in (run_a, run_b))
    ours, theirs = (_by_key(folder) for folder in (first, second))
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise UserError(f"{run_a} and {run_b} have no item in common: evaluate both on the same items")
    random = np.random.default_rng(seed)
    swapped = random.random(len(common)) < 0.5
    duels = []
    for key, swap in zip(common, swapped, strict=True):
        one, other = ours[key], theirs[key]
        files = image_path(first, one.source), image_path(first, one.image), image_path(second, other.image)
        duels.append(Duel(key, one.instruction, one.task, *files, bool(swap)))
    return [duels[index] for index in random.permutation(len(duels))]


def runs_id(run_a: Path, run_b: Path) -> str:
    """A hash of both evaluations, by which their votes are known."""
    content = b"".join((_evaluation(run) / "rows.jsonl").read_bytes() for run in (run_a, run_b))
    return hashlib.sha256(content).hexdigest()[:16]


class Votes:
    """The votes in one file; its pictures are in `<stem>_images` beside it. A UserError if it is of other runs."""

    def __init__(self, path: Path, runs: str) -> None:
        self.path, self.runs = path, runs
        self._lines = JsonLines(path, "votes", "give another --out", load=_vote, ensure_ascii=False)
        self.lines = self._lines.rows
        if any(line["runs"] != runs for line in self.lines):
            raise UserError(f"--out {path} holds votes on other runs: give another name")

    @property
    def keys(self) -> set[str]:
        return {line["key"] for line in self.lines}

    @property
    def counts(self) -> Counter[str]:
        return Counter(line["preference"] for line in self.lines)

    def add(self, duel: Duel, preference: Preference) -> None:
        """Write a vote, in place of an earlier one on the same duel; if the disk is full, nothing changes."""
        pictures = {"source": duel.source, "edit_a": duel.a, "edit_b": duel.b}
        names = {}
        for role, file in pictures.items():
            names[role] = f"{self.path.stem}_images/{file_name(duel.key)}_{role}.png"
            write_file(self.path.parent / names[role], png(open_image(file.parent, file.name)))
        fields = {"instruction": duel.instruction, "task": duel.task, "preference": preference}
        others = [line for line in self.lines if line["key"] != duel.key]
        self._write([*others, {**names, **fields, "key": duel.key, "runs": self.runs}])

    def undo(self) -> None:
        """Remove the newest vote."""
        self._write(self.lines[:-1])

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        self._lines.replace(lines)
        self.lines = list(lines)


def _vote(*, key: str, preference: Preference, runs: str, **others: str) -> dict[str, str]:
    """A line of the file as it is; other files of preferences lack one of these keys."""
    line: dict[str, str] = {**others, "preference": preference, "key": key, "runs": runs}
    if wrong := [name for name, value in line.items() if not isinstance(value, str)]:
        raise ValueError(f"{printable(wrong[0])!r} is no text")
    return line


def _evaluation(run: Path) -> Path:
    for folder in (run, run / AFTER, run / EDITS):
        if (folder / "rows.jsonl").is_file():
            return folder
    raise UserError(
        f"{run} holds no evaluation (no rows.jsonl): give a run that `editr1 demo` or `editr1 eval toy` measured"
    )


def _by_key(folder: Path) -> dict[str, EditRow]:
    try:
        return {f"{row.key}/{row.index}": row for row in read_rows(folder)}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the evaluation {folder}: {error}") from error
