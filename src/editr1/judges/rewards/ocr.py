"""Whether the text that an instruction quotes can be read in the edit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score

QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|「([^」]+)」|《([^》]+)》|(?<!\w)'([^']+)'(?!\w)|‘([^’]+)’")


class OcrReward:
    """1 - edits / letters between the target text and the likest line of the edit; the worst of several targets.

    The target is the text that the requirement quotes, or else the last one that the instruction quotes ("replace 'A'
    with 'B'"). An edit without a target has no score.

    Raises:
        UserError: The package rapidocr-onnxruntime is not installed.
    """

    remote = False

    def __init__(self) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise UserError("reward kind ocr needs rapidocr-onnxruntime: pip install 'editr1[ocr]'") from error
        self._read: Any = RapidOCR()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request."""
        return [self._score(request) for request in requests]

    def _score(self, request: JudgeRequest) -> Score:
        targets = quoted(request.sample.requirement) or quoted(request.sample.instruction)[-1:]
        if not targets:
            return Score(None, "neither instruction nor requirement quotes a text")
        lines = self._lines(request.edit)
        readings = [*lines, " ".join(lines)]
        return Score(min(max(likeness(text, line) for line in readings) for text in targets), text=" ".join(lines))

    def _lines(self, image: Image) -> list[str]:
        """The text in a picture, line by line."""
        lines, _ = self._read(np.asarray(image.convert("RGB"))[..., ::-1])  # it takes BGR
        return [line[1] for line in lines or []]


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
