"""GEdit-Bench (stepfun-ai/GEdit-Bench; arXiv 2504.17761), judged as VIEScore does (arXiv 2312.14867).

Each edit gets two questions, each answered by a list of scores from 0 to 10. SC sees source and edit, PQ only the
edit; SC and PQ are the least of their lists, O = sqrt(SC * PQ). A table's overall is the mean over the task types. The
edit is resized to the source before it is judged.

The official reading of an answer: the JSON between two "||V^=^V||", or from the first "{" to the last "}", with one
repair (bare words are quoted); else "[a, b]" of two whole numbers; else the answer is one whole number. Two things of
the official script are left out: it draws a random number if it gives up, and it has no limit on tries.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from editr1.data.columns import TableRow, columns_of, read_table
from editr1.data.plain_text import plain
from editr1.errors import UserError
from editr1.evaluation.benchmarks import base
from editr1.evaluation.benchmarks.base import SAFE_NAME, Benchmark, Item, ItemResult, Question, Reading, Tables
from editr1.evaluation.benchmarks.lines import type_table
from editr1.files import write_file
from editr1.judges.base import Ask

TYPES = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
LANGUAGES = ("en", "cn")
COLUMNS = frozenset({"task_type", "key", "instruction", "instruction_language", "input_image", "Intersection_exist"})
LOW, HIGH, MAX_TOKENS = 0, 10, 1400
MOST = 1e9  # bound of a number in an answer; the official script has none, and fails if numbers overflow
DELIMITER = "||V^=^V||"
OFFICIAL = {  # constants of vie_prompts.py that the official script joins by line ends
    "consistency": ("_context_no_delimit", "_prompts_0shot_two_image_edit_rule", "_prompts_0shot_tie_rule_SC"),
    "quality": ("_context_no_delimit", "_prompts_0shot_rule_PQ"),
}
CRITERIA = {  # the criterion of our own template that replaces each official score
    "consistency": {"editing success": "instruction", "degree of overediting": "preservation"},
    "quality": {"naturalness": "quality", "artifacts": "quality"},
}
CSV_COLUMNS = (
    "source_image",
    "edited_image",
    "instruction",
    "sementics_score",
    "quality_score",
    "intersection_exist",
    "instruction_language",
)
NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
PAIR = re.compile(rf"\[{NUMBER}[,，]{NUMBER}\]")


class GEdit(Benchmark):
    """The benchmark on disk: parquet files, or a folder that `datasets` saved, with `vie_prompts.py` if you have it.

    Args:
        folder: Folder of the benchmark, or one file.
        limit: Number of items to take of each language, the first ones; None for all.
        judge: What `--judge` says; the official folder of the results is named after it.

    Raises:
        UserError: the columns are missing, or a row is wrong; the row is named.
    """

    name, metrics, best, asks = "gedit", ("O", "SC", "PQ"), 10.0, ("consistency", "quality")

    def __init__(self, folder: Path, limit: int | None = None, judge: str = "") -> None:
        self.folder, self.backbone = folder, backbone_of(judge)
        items = [item for file in _files(folder) for item in _items(file)]
        by_language = [[item for item in items if f"{language} full" in item.subsets] for language in LANGUAGES]
        everything = [item for some in by_language for item in some]
        self.items = [item for some in by_language for item in some[:limit]]
        self.digest = base.digest_of(everything)
        if not self.items:
            raise UserError(f"{folder} holds no item")
        if len({item.key for item in everything}) < len(everything):
            raise UserError(f"{folder} holds an item twice; give one copy of the benchmark")
        base.refuse_shared_files(everything, folder)
        self.templates, self.prompts = self._templates()

    def questions(self, item: Item, source: Image, edit: Image) -> dict[str, Question]:
        """SC: text, source, edit. PQ: text, edit."""
        fitted = edit if edit.size == source.size else edit.resize(source.size)
        text = self.templates["consistency"].replace("<instruction>", plain(item.instruction))
        asks = {"consistency": Ask((text, source, fitted), max_tokens=MAX_TOKENS)}
        asks["quality"] = Ask((self.templates["quality"], fitted), max_tokens=MAX_TOKENS)
        return {name: Question(ask, CRITERIA[name], LOW, HIGH, _write) for name, ask in asks.items()}

    def read(self, item: Item, question: str, text: str) -> Reading:
        return Reading(official_scores(text), careful_scores(text))

    def score(self, item: Item, answers: Mapping[str, str | None], reasons: Mapping[str, str]) -> ItemResult:
        """SC, PQ and O; all None if one cannot be read, as in the official script."""
        readings = {name: self.read(item, name, text) if text else Reading() for name, text in answers.items()}
        sc, pq = (min(readings[name].numbers, default=None) for name in self.asks)
        careful = [min(readings[name].careful, default=None) for name in self.asks]
        overall = _overall(sc, pq)
        scores = dict(zip(self.metrics, (None, None, None) if overall is None else (overall, sc, pq), strict=True))
        return ItemResult(item, answers, reasons, scores, _overall(*careful))

    def finish(self, results: Sequence[ItemResult], out: Path) -> Tables:
        """Write the official CSV files, and make a table for each language, full and intersection."""
        folder = out / self.backbone / "eval_results_new"
        everything = []
        for task in TYPES:
            lines = [_csv_line(r, out) for r in results if r.item.task == task and r.scores["O"] is not None]
            everything += lines
            write_file(folder / f"{out.resolve().name}_{task}_gpt_score.csv", _csv(lines))
        write_file(folder / f"{out.resolve().name}_combined_gpt_score.csv", _csv(everything))
        subsets = [f"{language} {name}" for language in LANGUAGES for name in ("full", "intersection")]
        tables = {
            name: type_table([r for r in results if name in r.item.subsets], TYPES, self.metrics) for name in subsets
        }
        return {name: table for name, table in tables.items() if table}

    def _templates(self) -> tuple[dict[str, str], str]:
        root = self.folder if self.folder.is_dir() else self.folder.parent
        copies = [path for path in (root / "vie_prompts.py", root / "viescore/vie_prompts.py") if path.is_file()]
        if copies:
            words = base.constants_of(copies[0])
            missing = sorted({name for names in OFFICIAL.values() for name in names} - set(words))
            if missing:
                raise UserError(f"{copies[0]}: there is no {', '.join(missing)}; take the file of the official code")
            return {name: "\n".join(words[part] for part in parts) for name, parts in OFFICIAL.items()}, "official"
        return base.packaged("gedit_prompts.yaml"), "own wording"


def backbone_of(judge: str) -> str:
    """The official scripts' name of a judge and of its folder; they know only these two."""
    return "qwen25vl" if "qwen" in judge.lower() else "gpt4o"


def official_scores(text: str) -> tuple[float, ...]:
    """The list of scores as the official script reads it; () if it would fail, or take what is no score."""
    if text.count(DELIMITER) == 2:
        return _json_scores(text[text.find(DELIMITER) + len(DELIMITER) : text.rfind(DELIMITER)])
    start, end = text.find("{"), text.rfind("}") + 1
    if start != -1 and end != 0:
        return _json_scores(text[start:end])
    start, end = text.find("["), text.rfind("]") + 1
    try:
        if re.fullmatch(r"\[\d+, ?\d+\]", text[start:end], re.ASCII):
            return _numbers(json.loads(text[start:end]))
        number = int(text)
    except ValueError:
        return ()
    return (float(number),) if LOW <= number <= HIGH else ()


def careful_scores(text: str) -> tuple[float, ...]:
    """Two scores from 0 to 10 if the answer has exactly one list of two numbers, once or repeated; else ()."""
    pairs = {(float(a), float(b)) for a, b in PAIR.findall(text)}
    return min(pairs) if len(pairs) == 1 and all(LOW <= number <= HIGH for number in min(pairs)) else ()


def _json_scores(body: str) -> tuple[float, ...]:
    body = body.strip().replace("\n", "")
    for content in (body, _repaired(body)):
        try:
            scores = json.loads(content)["score"]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            continue
        return _numbers(scores if isinstance(scores, list) else [scores])
    return ()


def _numbers(scores: Sequence[Any]) -> tuple[float, ...]:
    """The scores if their least has a square root, which the official script takes."""
    sound = all(isinstance(score, (int, float)) and 0 <= score < MOST for score in scores)
    return tuple(map(float, scores)) if sound else ()


def _repaired(body: str) -> str:
    """JSON whose keys and words lack quotes, mended as by the official script; a bare number becomes a list."""

    def quoted(match: re.Match[str]) -> str:
        key, value, end = match[1], match[2].strip(), match[3]
        if re.fullmatch(r"-?\d+(\.\d+)?", value):
            return f"{key}: [{value}]{end}"
        return f"{key}: {value}{end}" if value.lower() in ("true", "false", "null") else f'{key}: "{value}"{end}'

    return re.sub(r'(".*?"):(.*?)(,|})', quoted, re.sub(r"(\w+):", r'"\1":', body))


def _write(numbers: Sequence[float]) -> str:
    return json.dumps({"score": [min(max(round(number), LOW), HIGH) for number in numbers], "reasoning": ""})


def _overall(sc: float | None, pq: float | None) -> float | None:
    return None if sc is None or pq is None else math.sqrt(sc * pq)


def _csv_line(result: ItemResult, out: Path) -> list[Any]:
    """A line as the official script writes it; paths begin with the method's folder."""
    item, name = result.item, out.resolve().name
    language = item.edit_file.split("/")[2]
    places = [f"{name}/{item.source_file}", f"{name}/{item.edit_file}"]
    scores = [result.scores["SC"], result.scores["PQ"]]
    numbers = [int(score) if score is not None and score == int(score) else score for score in scores]
    return [*places, item.instruction, *numbers, f"{language} intersection" in item.subsets, language]


def _csv(lines: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([CSV_COLUMNS, *lines])
    return text.getvalue().encode()


def _files(folder: Path) -> list[Path]:
    """The files that hold the benchmark's columns."""
    candidates = [folder] if folder.is_file() else sorted([*folder.rglob("*.parquet"), *folder.rglob("*.arrow")])
    files = [file for file in candidates if file.suffix in (".parquet", ".arrow") and columns_of(file) >= COLUMNS]
    if not files:
        columns = ", ".join(sorted(COLUMNS))
        what = f"no parquet or Arrow file with the columns {columns}"
        raise UserError(f"--data {folder}: {what}; download stepfun-ai/GEdit-Bench")
    return files


def _items(file: Path) -> list[Item]:
    has_raw = "input_image_raw" in columns_of(file)
    return [_item(row, has_raw) for row in read_table(file)]


def _item(row: TableRow, has_raw: bool) -> Item:
    language, key, task = row.text("instruction_language"), row.text("key"), row.text("task_type")
    if language not in LANGUAGES:
        raise UserError(f"{row.where}: instruction_language {language!r}; there are {', '.join(LANGUAGES)}")
    if not SAFE_NAME.fullmatch(key):
        raise UserError(f"{row.where}: key {key!r} must be usable as a file name")
    if task not in TYPES:
        raise UserError(f"{row.where}: task_type {task!r}; there are {', '.join(TYPES)}")
    subsets = [f"{language} full", f"{language} intersection"][: 2 if row.cells["Intersection_exist"] else 1]
    stem = f"fullset/{task}/{language}/{key}"
    return Item(
        key=f"{task}/{language}/{key}",
        task=task,
        instruction=row.text("instruction"),
        source=row.image("input_image", None),
        original=row.image("input_image_raw", None) if has_raw else None,
        edit_file=f"{stem}.png",
        source_file=f"{stem}_SRCIMG.png",
        subsets=tuple(subsets),
    )
