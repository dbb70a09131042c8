"""Whether the text that an instruction quotes can be read in the edit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score, SingleJudge

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|「([^」]+)」|《([^》]+)》|(?<!\w)'([^']+)'(?!\w)|‘([^’]+)’")


class OcrReward(SingleJudge):
    """1 - edits / letters between the target text and the likest line of the edit; the worst of several targets.

    The target is the text that the requirement quotes, or else the last one that the instruction quotes ("replace 'A'
    with 'B'"). An edit without a target has no score.
    """

    def __init__(self) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise UserError("reward kind ocr needs rapidocr-onnxruntime: pip install 'editr1[ocr]'") from error
        self._read: Any = RapidOCR()

    def score_one(self, request: JudgeRequest) -> Score:
        targets = quoted(request.sample.requirement) or quoted(request.sample.instruction)[-1:]
        if not targets:
            return Score(None, "neither instruction nor requirement quotes a text", applies=False)
        listing, _ = self._read(np.asarray(request.edit.convert("RGB"))[..., ::-1])  # it takes BGR
        lines = [line[1] for line in listing or []]
        readings = [*lines, " ".join(lines)]
        return Score(min(max(likeness(text, line) for line in readings) for text in targets), text=" ".join(lines))


def quoted(text: str) -> list[str]:
    """The texts between quotation marks."""
    return [next(filter(None, match)) for match in QUOTED.findall(text)]


def likeness(target: str, reading: str) -> float:
    """1 - Levenshtein distance / the longer length; letter case and spaces do not count."""
    one, two = (re.sub(r"\s+", "", text.casefold()) for text in (target, reading))
    row = list(range(len(two) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(two, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return 1 - row[-1] / max(len(one), len(two), 1)
