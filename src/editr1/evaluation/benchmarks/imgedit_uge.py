"""ImgEdit-Bench, understanding-grounding-editing suite (PKU-YuanGroup/ImgEdit, Benchmark/UGE; arXiv 2505.20275).

47 hard edits, one question each. Answers are read by the rule of the basic suite, and the overall is the mean of the
items' scores. The official prompt asks for no line that this rule reads, and the rule reads none of the answers that
the official page shows ("... Score: 2."): these are dropped here too, and the careful reader has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from editr1.data.plain_text import plain
from editr1.errors import UserError
from editr1.evaluation.benchmarks import base
from editr1.evaluation.benchmarks.base import Benchmark, Item, ItemResult, Question, Reading, Tables
from editr1.evaluation.benchmarks.imgedit import (
    HIGH,
    LOW,
    MAX_TOKENS,
    item_of,
    official_numbers,
    read_file,
    result_of,
)
from editr1.evaluation.benchmarks.lines import OVERALL, line
from editr1.files import write_file
from editr1.judges.base import Ask

ITEMS, PROMPTS, TASK = "UGE_edit.json", "UGE_bench.py", "edit"
PLACE = "<edit_prompt>"
SCORE = re.compile(r"\bscore\W{0,6}([0-9]+(?:\.[0-9]+)?)(?:\s*/\s*5)?(?![\w.]*\d)", re.IGNORECASE)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)


class ImgEditUGE(Benchmark):
    """The suite in a folder: `UGE_edit.json`, the images under their ids, and `UGE_bench.py` if you have it.

    Args:
        folder: Folder of the suite.
        limit: Number of items to take, the first ones; None for all.
        judge: Unused: the official files do not name the judge.

    Raises:
        UserError: a file is missing or wrong; it names the entry.
    """

    name, metrics, best, asks, criteria = "imgedit-uge", ("score",), 5.0, ("judge",), ("overall",)

    def __init__(self, folder: Path, limit: int | None = None, judge: str = "") -> None:
        root = folder.resolve()
        self.template, self.prompts = _template(root)
        file = root / ITEMS
        entries = read_file(file, TypeAdapter(dict[str, _Entry])).items()
        items = [item_of(root, key, TASK, entry.prompt, entry.id, f"{file}: {key!r}") for key, entry in entries]
        self.items, self.digest = items[:limit], base.digest_of(items)
        if not self.items:
            raise UserError(f"{folder / ITEMS} holds no item")
        base.refuse_shared_files(items, folder)

    def questions(self, item: Item, source: Image, edit: Image) -> dict[str, Question]:
        """The only question of the official script: text, source, edit."""
        text = self.template.replace(PLACE, plain(item.instruction))
        ask = Ask((text, source, edit), max_tokens=MAX_TOKENS)
        return {"judge": Question(ask, {"Score": "overall"}, LOW, HIGH, _write)}

    def read(self, item: Item, question: str, text: str) -> Reading:
        return Reading(official_numbers(text), careful_number(text))

    def score(self, item: Item, answers: Mapping[str, str | None], reasons: Mapping[str, str]) -> ItemResult:
        return result_of(self, item, answers, reasons)

    def finish(self, results: Sequence[ItemResult], out: Path) -> Tables:
        """Write result.json, which the official `get_average_score.py` reads."""
        raw = {result.item.key: result.answers["judge"] for result in results if result.answers["judge"] is not None}
        write_file(out / "result.json", json.dumps(raw, indent=4).encode())
        return {"all": (line(OVERALL, results, self.metrics, "score"),)}


def careful_number(text: str) -> tuple[float, ...]:
    """The one number from 1 to 5 that the answer calls its score, once or repeated; else ()."""
    numbers = {float(match) for match in SCORE.findall(text)}
    return tuple(numbers) if len(numbers) == 1 and all(LOW <= number <= HIGH for number in numbers) else ()


def _write(numbers: Sequence[float]) -> str:
    return f"Score: {min(max(round(numbers[0]), LOW), HIGH)}"


def _template(folder: Path) -> tuple[str, str]:
    path = folder / PROMPTS
    if not path.is_file():
        return str(base.packaged("imgedit_prompts.yaml")["uge"]), "own wording"
    prompt = base.constants_of(path).get("prompt", "")
    if PLACE not in prompt:
        raise UserError(f"{path}: there is no prompt with {PLACE}; take the file of the official code")
    return prompt, "official"
