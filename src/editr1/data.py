"""What the editor is asked to do: one source image, one instruction, and how to tell whether it was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image


@dataclass(frozen=True)
class EditSample:
    """One item of a dataset: the unit by which edits are grouped (never by instruction text).

    Attributes:
        key: unique in its dataset, stable between runs.
        source: the image to edit, RGB.
        instruction: what to do, in words.
        requirement: one sentence for the judge: what a right edit shows. May be empty.
        task: the task type that metrics and tables are split by, e.g. "add" or "remove".
    """

    key: str
    source: Image
    instruction: str
    requirement: str = ""
    task: str = "edit"


class EditDataset(Protocol):
    """Anything with a length that gives an `EditSample` by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> EditSample: ...
