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
    """1 - edits / letters between the wanted text and the likest of what is read; the worst of several texts.

    The wanted text is what the requirement quotes, or else what the instruction quotes last ("replace 'A' with
    'B'"). An edit of which nothing is quoted has no score.

    Raises:
        UserError: rapidocr-onnxruntime is not installed.
    """

    remote = False

    def __init__(self) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise UserError("reward kind ocr needs rapidocr-onnxruntime: pip install 'editr1[ocr]'") from error
        self._read: Any = RapidOCR()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score a request."""
        return [self._score(request) for request in requests]

    def _score(self, request: JudgeRequest) -> Score:
        wanted = quoted(request.sample.requirement) or quoted(request.sample.instruction)[-1:]
        if not wanted:
            return Score(None, "neither instruction nor requirement quotes a text")
        lines = self._lines(request.edit)
        found = [*lines, " ".join(lines)]
        return Score(min(max(likeness(text, line) for line in found) for text in wanted), text=" ".join(lines))

    def _lines(self, image: Image) -> list[str]:
        """What is written, line by line."""
        found, _ = self._read(np.asarray(image.convert("RGB"))[..., ::-1])  # it takes BGR
        return [line[1] for line in found or []]


def quoted(text: str) -> list[str]:
    """What stands between quotation marks."""
    return [next(filter(None, match)) for match in QUOTED.findall(text)]


def likeness(wanted: str, read: str) -> float:
    """1 - Levenshtein distance / the longer length; letter case and spaces do not count."""
    one, two = (re.sub(r"\s+", "", text.casefold()) for text in (wanted, read))
    row = list(range(len(two) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(two, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return 1 - row[-1] / max(len(one), len(two), 1)
