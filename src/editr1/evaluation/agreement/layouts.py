"""Preferences as they are published: four layouts beside our own, known by their columns.

editscore  EditScore/EditReward-Bench: instruction, input_image, output_images [2], task_type, dimension
tiger      TIGER-Lab/EditReward-Bench: id, instruction, dataset, ranking, source_image, candidate_1, candidate_2
genai      TIGER-Lab/GenAI-Bench, image_edition: instruct_prompt, source_image, left_output_image, right_output_image,
           vote_type
compass    EditReward-Compass: dimension, source_image, prompt, winner, loser, label

Each may be parquet (one file or a folder of them) or JSON (a list, or one object a line) with paths relative to it.
Where the preferred edit always stands first, the two are put in random order by a fixed seed: a judge must gain nothing
from where an edit stands.
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
from editr1.data.samples import read_text
from editr1.errors import UserError
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
        task, instruction = row.text("task_type"), row.text("instruction")
        pairs.append(
            Pair(
                key=f"row-{i}",
                source=row.image("input_image", None),
                instruction=instruction,
                edit_a=row.image("output_images", 0),
                edit_b=row.image("output_images", 1),
                preference="a",
                task=task,
                dimension=row.text("dimension"),
                group=json.dumps([task, instruction]),
            )
        )
    return _shuffled(pairs)


def tiger(rows: Sequence[TableRow]) -> list[Pair]:
    """One row a pair of a group of 2, 3 or 4 edits; rows that an early release repeats are dropped."""
    pairs: list[Pair] = []
    keys: set[tuple[Any, ...]] = set()
    for row in rows:
        name = row.text("id")
        models = tuple(row.cells.get(column) for column in ("model_1", "model_2"))
        if None not in models and (name, *models) in keys:
            continue
        keys.add((name, *models))
        pairs.append(
            Pair(
                key=f"{row.text('dataset')}/{name}/{len(pairs)}",
                source=row.image("source_image", None),
                instruction=row.text("instruction"),
                edit_a=row.image("candidate_1", None),
                edit_b=row.image("candidate_2", None),
                preference=_ranking(row),
                group=f"{row.text('dataset')}/{name.partition('_')[0]}",
                score_a=row.number("score_1"),
                score_b=row.number("score_2"),
            )
        )
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
    pairs = []
    for i, row in enumerate(rows):
        vote = row.text("vote_type")
        if vote not in VOTES:
            raise UserError(f"{row.where}: vote_type {vote!r} is none of {', '.join(VOTES)}")
        pairs.append(
            Pair(
                key=f"row-{i}",
                source=row.image("source_image", None),
                instruction=row.text("instruct_prompt"),
                edit_a=row.image("left_output_image", None),
                edit_b=row.image("right_output_image", None),
                preference=VOTES[vote],
                both_bad=vote == "bothbad_vote",
            )
        )
    return pairs


def compass(rows: Sequence[TableRow]) -> list[Pair]:
    """A winner and a loser, or a tie between the two."""
    pairs = []
    for i, row in enumerate(rows):
        label = row.text("label")
        if label not in ("preference", "tie"):
            raise UserError(f"{row.where}: label {label!r} is neither preference nor tie")
        pairs.append(
            Pair(
                key=f"row-{i}",
                source=row.image("source_image", None),
                instruction=row.text("prompt"),
                edit_a=row.image("winner", None),
                edit_b=row.image("loser", None),
                preference="a" if label == "preference" else "tie",
                dimension=row.text("dimension"),
            )
        )
    return _shuffled(pairs)


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
    return [_swapped(pair) if rng.random() < 0.5 else pair for pair in pairs]


def _swapped(pair: Pair) -> Pair:
    other: Mapping[Preference, Preference] = {"a": "b", "b": "a", "tie": "tie"}
    return replace(pair, edit_a=pair.edit_b, edit_b=pair.edit_a, preference=other[pair.preference])


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
    content = (
        f"its columns are {', '.join(sorted(_columns(files[0]))) or 'none'}" if files else "no parquet, JSON or JSONL"
    )
    return f"{path} is in no layout that is known ({content}); known are {layouts}"


def _columns(file: Path) -> frozenset[str]:
    if file.suffix == ".parquet":
        return columns_of(file)
    if file.suffix == ".jsonl":
        first = next((line for line in read_text(file, WHAT).splitlines() if line.strip()), "")
        name = _layout(_keys(first))
        return COLUMNS[name] if name else OURS  # a wrong first line is reported by its number
    items = _items(file)
    return frozenset(items[0]) if items and isinstance(items[0], dict) else frozenset()


def _keys(line: str) -> frozenset[str]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return frozenset()
    return frozenset(value) if isinstance(value, dict) else frozenset()


def _items(file: Path) -> list[Any]:
    """The list in a JSON file, or the objects in a JSONL."""
    text = read_text(file, WHAT)
    try:
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: not JSON: {error}") from error
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
