"""ImgEdit-Bench, basic suite (PKU-YuanGroup/ImgEdit, Benchmark/Basic; arXiv 2505.20275).

The official rule, of its two scoring scripts: every line of an answer that ": " splits into two, the second only
digits, is a score. An item's score is their mean, a type's score the mean over its scored items, both rounded to 2
decimals (Python's `round`). Anything else is ignored: "4.5", "4/5", "Score:4". The overall of the papers' tables is the
mean over the types, here of their unrounded means over the items' rounded scores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from editr1.data.pictures import inside, open_picture
from editr1.data.plain_text import plain
from editr1.errors import UserError, first_problem, read_json
from editr1.evaluation.benchmarks import base
from editr1.evaluation.benchmarks.base import SAFE_NAME, Benchmark, Item, ItemResult, Question, Reading, Tables
from editr1.evaluation.benchmarks.lines import type_table
from editr1.files import write_file
from editr1.judges.base import Ask

TYPES = ("add", "adjust", "extract", "replace", "remove", "background", "style", "compose", "action")
"""In the order of the papers' tables; "compose" is their "Hybrid"."""
CRITERIA = ("instruction", "quality", "preservation")
LOW, HIGH, MAX_TOKENS = 1, 5, 512
NAME = re.compile(r"^(.{3,60}?): A number from 1 to 5", re.MULTILINE)
CAREFUL = re.compile(r"^[^:：\n]{1,60}[:：]\W{0,6}([0-9]+(?:\.[0-9]+)?)(?:\s*/\s*5)?\W*$")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    edit_type: str


class ImgEdit(Benchmark):
    """The benchmark in a folder: `basic_edit.json`, the images under their ids, and `prompts.json` if you have it.

    Args:
        folder: Folder of the benchmark.
        limit: Number of items to take, the first ones; None for all.
        judge: Unused: the official files do not name the judge.

    Raises:
        UserError: a file is missing or wrong; it names the entry.
    """

    name, metrics, best, asks = "imgedit", ("score",), 5.0, ("judge",)

    def __init__(self, folder: Path, limit: int | None = None, judge: str = "") -> None:
        self.folder = folder.resolve()
        self.templates, self.prompts = self._templates()
        entries = read_file(self.folder / "basic_edit.json", TypeAdapter(dict[str, _Entry]))
        items = [self._item(key, entry) for key, entry in entries.items()]
        self.items, self.digest = items[:limit], base.digest_of(items)
        if not self.items:
            raise UserError(f"{folder / 'basic_edit.json'} holds no item")
        base.refuse_shared_files(items, folder)

    def questions(self, item: Item, source: Image, edit: Image) -> dict[str, Question]:
        """The only question of the official script: text, source, edit."""
        template = self.templates[item.task]
        names = NAME.findall(template)
        text = template.replace("<edit_prompt>", plain(item.instruction))
        criteria = _meant(names if len(names) == len(CRITERIA) else CRITERIA)

        def write(numbers: Sequence[float]) -> str:
            lines = zip(criteria, numbers, strict=True)
            return "\n".join(f"{name}: {min(max(round(number), LOW), HIGH)}" for name, number in lines)

        return {"judge": Question(Ask((text, source, edit), max_tokens=MAX_TOKENS), criteria, LOW, HIGH, write)}

    def read(self, item: Item, question: str, text: str) -> Reading:
        return Reading(official_numbers(text), careful_numbers(text))

    def score(self, item: Item, answers: Mapping[str, str | None], reasons: Mapping[str, str]) -> ItemResult:
        return result_of(self, item, answers, reasons)

    def finish(self, results: Sequence[ItemResult], out: Path) -> Tables:
        """Write result.json, average_score.json and typescore.json, as the official scripts do."""
        raw = {result.item.key: result.answers["judge"] for result in results if result.answers["judge"] is not None}
        scores = {r.item.key: r.scores["score"] for r in results if r.scores["score"] is not None}
        table = type_table(results, TYPES, self.metrics)
        typed = {line.name: round(mean, 2) for line in table[:-1] if (mean := line.means["score"]) is not None}
        for name, content, indent in (("result", raw, 4), ("average_score", scores, 2), ("typescore", typed, 2)):
            write_file(out / f"{name}.json", json.dumps(content, indent=indent).encode())
        return {"all": table}

    def _templates(self) -> tuple[dict[str, str], str]:
        path = self.folder / "prompts.json"
        if path.is_file():
            templates = read_file(path, TypeAdapter(dict[str, str]))
            missing = [name for name in TYPES if "<edit_prompt>" not in templates.get(name, "")]
            if missing:
                raise UserError(f"{path}: no prompt with <edit_prompt> for {', '.join(missing)}")
            return templates, "official"
        words = base.packaged("imgedit_prompts.yaml")
        return {name: words["template"].replace("<look_at>", words["look_at"][name]) for name in TYPES}, "own wording"

    def _item(self, key: str, entry: _Entry) -> Item:
        where = f"{self.folder / 'basic_edit.json'}: {key!r}"
        if entry.edit_type not in TYPES:
            raise UserError(f"{where}: edit_type {entry.edit_type!r}; there are {', '.join(TYPES)}")
        return item_of(self.folder, key, entry.edit_type, entry.prompt, entry.id, where)


def result_of(
    benchmark: Benchmark, item: Item, answers: Mapping[str, str | None], reasons: Mapping[str, str]
) -> ItemResult:
    """The result of an item whose only answer, if it has one, `benchmark` reads."""
    text = answers["judge"]
    reading = benchmark.read(item, "judge", text) if text is not None else Reading()
    return ItemResult(item, answers, reasons, {"score": item_score(reading)}, mean_of(reading.careful))


def item_of(folder: Path, key: str, task: str, instruction: str, image: str, where: str) -> Item:
    """An item whose picture is `image` below the folder; a UserError at `where` if there is none."""
    if not SAFE_NAME.fullmatch(key):
        raise UserError(f"{where}: a key must be usable as a file name")
    path = inside(folder, image, where)
    if not path.is_file():
        raise UserError(f"{where}: there is no image {image!r} in {folder}; unpack Benchmark.tar there")
    return Item(key, task, instruction, partial(open_picture, path, where), f"{key}.png", f"sources/{key}.png")


def _meant(names: Sequence[str]) -> dict[str, str]:
    """The criterion that each official name means: by its place, or by quality being the last one."""
    instruction, quality, preservation = CRITERIA
    last = (preservation, quality) if "quality" in names[2].lower() else (quality, preservation)
    return dict(zip(names, (instruction, *last), strict=True))


def item_score(reading: Reading) -> float | None:
    """The official score of an item: the mean of its numbers, rounded; None if there are none."""
    mean = mean_of(reading.numbers)
    return None if mean is None else round(mean, 2)


def mean_of(numbers: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(numbers) / len(numbers) if numbers else None


def official_numbers(text: str) -> tuple[float, ...]:
    """The official script's reading; a digit that Python's `int` refuses, which ends that script, is skipped."""
    parts = [line.strip().split(": ") for line in text.splitlines()]
    return tuple(int(part[1]) for part in parts if len(part) == 2 and part[1].isdecimal())


def careful_numbers(text: str) -> tuple[float, ...]:
    """The three scores if exactly three lines have one, each from 1 to 5; else ()."""
    plain = (line.strip().replace("*", "").replace("`", "") for line in text.splitlines())
    numbers = [float(match.group(1)) for line in plain if (match := CAREFUL.match(line))]
    return tuple(numbers) if len(numbers) == len(CRITERIA) and all(LOW <= n <= HIGH for n in numbers) else ()


def read_file(path: Path, kind: TypeAdapter[Any]) -> Any:
    """What a JSON file of the benchmark holds; a UserError if it is missing or holds something else."""
    if not path.is_file():
        raise UserError(f"there is no {path}; --data must be the benchmark's folder")
    try:
        return kind.validate_python(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from error
