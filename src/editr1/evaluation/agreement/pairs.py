"""Two edits of one picture and which of them people prefer; read from our own JSONL, one pair per line.

Pictures are opened only when they are needed, so that thousands of pairs do not fill the memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from editr1.data.columns import Opener, picture
from editr1.data.lines import checked_lines
from editr1.data.samples import EditSample
from editr1.errors import UserError

Preference = Literal["a", "b", "tie"]
SIGNS: Mapping[Preference, int] = {"a": 1, "tie": 0, "b": -1}

WHAT = "the preferences"


@dataclass(frozen=True)
class Pair:
    """Two edits and which is preferred.

    Attributes:
        key: unique among the pairs.
        source: opens the source image, RGB.
        instruction: what was asked for.
        edit_a: opens the first edit, RGB.
        edit_b: opens the second edit, RGB.
        preference: which edit people prefer; "tie" for neither.
        task: the task type that tables are split by.
        requirement: one sentence for the judge; may be empty.
        dimension: the aspect that people judged, if a benchmark has several.
        group: pairs of one group are not independent: intervals resample whole groups. Empty: a group of its own.
        both_bad: whether people called neither edit of a tie good.
        score_a: the reference's own score of the first edit, on any scale, if it has one.
        score_b: the reference's own score of the second edit.
        layout: the layout that the pair was read from; decides the tie rule.
        references: open the further source images, RGB.
    """

    key: str
    source: Opener
    instruction: str
    edit_a: Opener
    edit_b: Opener
    preference: Preference
    task: str = "edit"
    requirement: str = ""
    dimension: str = ""
    group: str = ""
    both_bad: bool = False
    score_a: float | None = None
    score_b: float | None = None
    layout: str = "jsonl"
    references: tuple[Opener, ...] = ()

    def sample(self) -> EditSample:
        """What the editors were asked; opens the source and the references."""
        references = tuple(opener() for opener in self.references)
        return EditSample(self.key, self.source(), self.instruction, self.requirement, self.task, references)


class _Line(BaseModel):
    """One line of a preference file; further keys are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    source: str = Field(min_length=1)
    instruction: str = Field(min_length=1)
    edit_a: str = Field(min_length=1)
    edit_b: str = Field(min_length=1)
    preference: Preference
    task: str = Field(default="edit", min_length=1)
    requirement: str = ""
    annotator: str = ""
    references: list[str] = []


def read_jsonl(file: Path) -> list[Pair]:
    """The pairs of a preference file: {"source", "instruction", "edit_a", "edit_b", "preference"} per line.

    "task", "requirement", "annotator" and the list "references" may be added; paths are relative to the file's folder
    and stay inside it.

    Raises:
        UserError: a line is wrong (its file and number are named), or there is none.
    """
    pairs = []
    for number, line in checked_lines(file, _Line, WHAT):
        where, key = f"{file}:{number}", f"{file.name}:{number}"
        names = (line.source, line.edit_a, line.edit_b, *line.references)
        source, a, b, *references = (picture(name, file.parent, where) for name in names)
        group = json.dumps([line.source, line.instruction])
        words = line.instruction, a, b, line.preference, line.task, line.requirement
        pairs.append(Pair(key, source, *words, group=group, references=tuple(references)))
    if not pairs:
        raise UserError(f"{file} holds no pair; write one JSON object a line")
    return pairs
