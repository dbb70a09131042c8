"""Preferences as they are published: four layouts beside our own, recognised by their columns.

editscore  EditScore/EditReward-Bench: instruction, input_image, output_images [2], task_type, dimension
tiger      TIGER-Lab/EditReward-Bench: id, instruction, dataset, ranking, source_image, candidate_1, candidate_2
genai      TIGER-Lab/GenAI-Bench, image_edition: instruct_prompt, source_image, left_output_image, right_output_image,
           vote_type
compass    EditReward-Compass: dimension, source_image, prompt, winner, loser, label

Each may be parquet (one file or a folder of them) or JSON (a list, or one object a line) with paths relative to it.
If the preferred edit always comes first, the two are put in random order by a fixed seed: a judge must not gain from
the position of an edit.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from editr1.data.columns import Opener, TableRow, columns_of, picture, place_of, read_table
from editr1.data.lines import read_text, text_lines
from editr1.errors import UserError, parse_json
from editr1.evaluation.agreement.pairs import WHAT, Pair, Preference, read_jsonl

SEED = 0
OURS = frozenset({"source", "instruction", "edit_a", "edit_b", "preference"})
VOTES: Mapping[str, Preference] = {"leftvote": "a", "rightvote": "b", "tievote": "tie", "bothbad_vote": "tie"}
_log = logging.getLogger(__name__)


def read_pairs(path: Path) -> list[Pair]:
    """The pairs in a file or a folder, in any layout that is known.

    Raises:
        UserError: nothing there is in a known layout, several layouts lie in one folder, or a row is wrong.
    """
    if not path.exists():
        raise UserError(f"there is no {path}; give a JSONL, a published set on disk, or toy")
    files = _files(path)
    layouts = {file: layout for file in files if (layout := _layout(_columns(file))) is not None}
    if not layouts:
        raise UserError(_unknown(path, files))
    if len(set(layouts.values())) > 1:
        raise UserError(f"{path} holds several layouts ({', '.join(sorted(set(layouts.values())))}); give one file")
    layout = next(iter(layouts.values()))
    sources = [file for file in layouts if file.name.startswith("test_v1")] or list(layouts)
    pairs = (
        [pair for file in sources for pair in read_jsonl(file)]
        if layout == "jsonl"
        else READERS[layout]([row for file in sources for row in _rows(file)])
    )
    if not pairs:
        raise UserError(f"{path} holds no pair")
    return [replace(pair, layout=layout) for pair in pairs]


def editscore(rows: Sequence[TableRow]) -> list[Pair]:
    """The first of two output images is the preferred one."""
    pairs = []
    for i, row in enumerate(rows):
        task, dimension = row.text("task_type"), row.text("dimension")
        group = json.dumps([task, row.text("instruction")])
        columns = ("instruction", "input_image", "output_images")
        pairs.append(_pair(row, f"row-{i}", columns, "a", task=task, dimension=dimension, group=group))
    return _shuffled(pairs)


def tiger(rows: Sequence[TableRow]) -> list[Pair]:
    """One row per pair of a group of 2, 3 or 4 edits; rows that an early release repeats are dropped."""
    columns = ("instruction", "source_image", "candidate_1", "candidate_2")
    pairs: list[Pair] = []
    keys: set[tuple[Any, ...]] = set()
    for row in rows:
        name, dataset = row.text("id"), row.text("dataset")
        models = tuple(row.cells.get(column) for column in ("model_1", "model_2"))
        if None not in models and (name, *models) in keys:
            continue
        keys.add((name, *models))
        group = f"{dataset}/{name.partition('_')[0]}"
        scores = {"score_a": row.number("score_1"), "score_b": row.number("score_2")}
        pairs.append(_pair(row, f"{dataset}/{name}/{len(pairs)}", columns, _ranking(row), group=group, **scores))
    if len(pairs) < len(rows):
        _log.warning("%d rows repeat an (id, model_1, model_2) and were dropped", len(rows) - len(pairs))
    return pairs


def _ranking(row: TableRow) -> Preference:
    """The order of the pair: A>B, B>A, A<B or A=B, in its letters; the earlier letter is the first candidate."""
    text = row.text("ranking")
    match = re.match(r"\s*([A-D])\s*([<>=])\s*([A-D])", text)
    if match is None or match[1] == match[3]:
        raise UserError(f"{row.where}: ranking {text!r} is not like 'A>B' or 'A=B'")
    if match[2] == "=":
        return "tie"
    return "a" if (match[1] < match[3]) == (match[2] == ">") else "b"


def genai(rows: Sequence[TableRow]) -> list[Pair]:
    """Left or right is better, both are good, or both are bad."""
    columns = ("instruct_prompt", "source_image", "left_output_image", "right_output_image")
    pairs = []
    for i, row in enumerate(rows):
        vote = row.text("vote_type")
        if vote not in VOTES:
            raise UserError(f"{row.where}: vote_type {vote!r} is none of {', '.join(VOTES)}")
        pairs.append(_pair(row, f"row-{i}", columns, VOTES[vote], both_bad=vote == "bothbad_vote"))
    return pairs


def compass(rows: Sequence[TableRow]) -> list[Pair]:
    """A winner and a loser, or a tie between the two."""
    columns = ("prompt", "source_image", "winner", "loser")
    pairs = []
    for i, row in enumerate(rows):
        label = row.text("label")
        if label not in ("preference", "tie"):
            raise UserError(f"{row.where}: label {label!r} is neither preference nor tie")
        preference: Preference = "a" if label == "preference" else "tie"
        pairs.append(_pair(row, f"row-{i}", columns, preference, dimension=row.text("dimension")))
    return _shuffled(pairs)


def _pair(row: TableRow, key: str, columns: Sequence[str], preference: Preference, **fields: Any) -> Pair:
    """A pair by its columns: the instruction, the source, and each of the edits, or one with a list of both."""
    words, source, *edits = columns
    places = ((edits[0], 0), (edits[0], 1)) if len(edits) == 1 else ((edits[0], None), (edits[1], None))
    edit_a, edit_b = (row.image(*place) for place in places)
    return Pair(key, row.image(source, None), row.text(words), edit_a, edit_b, preference, **fields)


Reader = Callable[[Sequence[TableRow]], list[Pair]]
READERS: Mapping[str, Reader] = {"editscore": editscore, "tiger": tiger, "genai": genai, "compass": compass}
COLUMNS: Mapping[str, frozenset[str]] = {
    "editscore": frozenset({"instruction", "input_image", "output_images", "task_type", "dimension"}),
    "tiger": frozenset({"id", "instruction", "dataset", "ranking", "source_image", "candidate_1", "candidate_2"}),
    "genai": frozenset({"instruct_prompt", "source_image", "left_output_image", "right_output_image", "vote_type"}),
    "compass": frozenset({"dimension", "source_image", "prompt", "winner", "loser", "label"}),
    "jsonl": OURS,
}


def _shuffled(pairs: Iterable[Pair]) -> list[Pair]:
    """The two edits of each pair in random order."""
    rng = np.random.default_rng(SEED)
    other: Mapping[Preference, Preference] = {"a": "b", "b": "a", "tie": "tie"}
    return [
        replace(p, edit_a=p.edit_b, edit_b=p.edit_a, preference=other[p.preference]) if rng.random() < 0.5 else p
        for p in pairs
    ]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    tables = sorted(path.rglob("*.parquet"))
    return tables or sorted(file for kind in ("*.jsonl", "*.json") for file in path.rglob(kind))


def _layout(columns: frozenset[str]) -> str | None:
    return next((name for name, needed in COLUMNS.items() if needed <= columns), None)


def _unknown(path: Path, files: Sequence[Path]) -> str:
    """Why nothing can be read, with the layouts that can."""
    layouts = "; ".join(f"{name}: {', '.join(sorted(columns))}" for name, columns in COLUMNS.items())
    columns = ", ".join(sorted(_columns(files[0]))) or "none" if files else ""
    content = f"its columns are {columns}" if files else "no parquet, JSON or JSONL"
    return f"{path} is in no layout that is known ({content}); known are {layouts}"


def _columns(file: Path) -> frozenset[str]:
    if file.suffix == ".parquet":
        return columns_of(file)
    if file.suffix == ".jsonl":
        first = next((line for line in text_lines(read_text(file, WHAT)) if line.strip()), "")
        name = _layout(_keys(first))
        return COLUMNS[name] if name else OURS  # a wrong first line is reported by its number
    items = _items(file)
    return frozenset(items[0]) if items and isinstance(items[0], dict) else frozenset()


def _keys(line: str) -> frozenset[str]:
    try:
        value = parse_json(line, "")
    except UserError:  # it is told with its number
        return frozenset()
    return frozenset(value) if isinstance(value, dict) else frozenset()


def _items(file: Path) -> list[Any]:
    """The list in a JSON file, or the objects in a JSONL."""
    text = read_text(file, WHAT)
    if file.suffix == ".jsonl":
        lines = enumerate(text_lines(text), start=1)
        return [parse_json(line, f"{file}:{number}") for number, line in lines if line.strip()]
    value = parse_json(text, str(file))
    if not isinstance(value, list):
        raise UserError(f"{file}: expected a JSON list of pairs")
    return value


def _rows(file: Path) -> list[TableRow]:
    if file.suffix == ".parquet":
        return read_table(file)
    rows = []
    for number, cells in enumerate(_items(file), start=1):
        where = f"{file}: pair {number}"
        if not isinstance(cells, dict):
            raise UserError(f"{where}: expected a JSON object")
        rows.append(TableRow(cells, where, partial(_json_picture, cells, file.parent, where)))
    return rows


def _json_picture(cells: Mapping[str, Any], folder: Path, where: str, column: str, place: int | None) -> Opener:
    return picture(place_of(cells.get(column), place, where), folder, f"{where}: {column}")
