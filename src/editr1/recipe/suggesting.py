"""`editr1 data suggest`: requirements and tasks that a dataset lacks, written by a multimodal model into a new file.

The answers are kept in a file beside it while they come, so that the same command goes on after a stop. The new file is
written when every item has been answered; an answer that cannot be used leaves its item as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from editr1.data.forms import kind_of
from editr1.data.hashes import sha256_of
from editr1.data.pictures import shrink
from editr1.data.samples import ItemLine, JsonlDataset
from editr1.errors import UserError, tell
from editr1.files import JsonLines, loader, write_file
from editr1.judges.base import MLLM, Ask
from editr1.recipe.answers import Rejected, read_requirement, read_task
from editr1.recipe.asking import Ended, Talk, converse
from editr1.recipe.library import SHOWN
from editr1.recipe.words import TASKS, load_words

NO_TASK = "edit"
"""The task of an item whose line names none."""
NAMES = ("add", "style", *TASKS)
SHORT = 200  # tokens of an answer


@dataclass(frozen=True)
class Filled:
    """The answers about one item: its key, what they fill in, and the reasons why they fill in nothing."""

    key: str
    texts: dict[str, str]
    rejected: list[str]


@dataclass(frozen=True)
class Gaps:
    """A dataset, and where its gaps are.

    Attributes:
        items: The dataset.
        missing: Index of each item that lacks something.
        out: File to write.
    """

    items: JsonlDataset
    missing: list[int]
    out: Path


def open_gaps(folder: Path, out: Path) -> Gaps:
    """The gaps of the dataset in a folder; a UserError if `out` is there already, or there are none."""
    if out.exists():
        raise UserError(f"--out {out}: it is there already, and nothing is overwritten; choose another file")
    items = JsonlDataset(folder, kind=kind_of(folder))
    missing = [index for index, line in enumerate(items.lines) if _lacks(line)]
    if not missing:
        raise UserError(f"{items.file}: every item has a requirement and a task; nothing is to be filled in")
    return Gaps(items, missing, out)


def fill(gaps: Gaps, model: MLLM, on_item: Callable[[], object] = lambda: None) -> dict[str, int]:
    """Fill the gaps; numbers of what is filled in, and of answers that cannot be used by reason.

    Raises:
        UserError: Items have no answer; they are asked about again by the next call.
    """
    items, store = gaps.items, _open_store(gaps, model)
    done = {row.key: row for row in store.rows}
    for _ in done:
        on_item()
    silent = []
    left = [index for index in gaps.missing if items.items[index][1] not in done]
    for end in converse(model, _talks(items, left)):
        if isinstance(end, Ended):
            store.append([asdict(end.value)])
            done[end.name] = end.value
            on_item()
        else:
            tell(f"{end.name}: no answer: {end.reason}")
            silent.append(end)
    if silent:
        raise UserError(
            f"{len(silent)} of {len(gaps.missing)} items have no answer ({silent[0].name}: {silent[0].reason}); mend "
            "the model's server, then run the same command again: the other answers are kept"
        )
    lines = [_line(line, done.get(key)) for line, key, _ in items.items]
    write_file(gaps.out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    store.path.unlink()
    filled = Counter(name for row in done.values() for name in row.texts)
    rejected = Counter(f"rejected: {reason}" for row in done.values() for reason in row.rejected)
    return {**dict(sorted(filled.items())), **dict(sorted(rejected.items()))}


def _open_store(gaps: Gaps, model: MLLM) -> JsonLines[Filled]:
    path = gaps.out.with_name(f"{gaps.out.name}.answers")
    head = {"data": sha256_of(gaps.items.file), "model": model.name, "words": load_words().version}
    return JsonLines(
        path, "answers about items", f"delete {path}, or choose another --out", head=head, load=loader(Filled)
    )


def _lacks(line: ItemLine) -> list[str]:
    """What a line lacks."""
    return ["requirement"] * (not line.requirement) + ["task"] * (line.task == NO_TASK)


def _talks(items: JsonlDataset, left: list[int]) -> Iterator[tuple[str, Talk[Filled]]]:
    for index in left:
        yield items.items[index][1], _talk(items, index)


def _talk(items: JsonlDataset, index: int) -> Talk[Filled]:
    """The answers about one item."""
    sample, words = items[index], load_words()
    lacks = _lacks(items.items[index][0])
    questions = {"requirement": words.requirement, "task": words.task}
    asked = [questions[name].format(instruction=sample.instruction, tasks=", ".join(NAMES)) for name in lacks]
    shown = shrink(sample.source, SHOWN)
    answers = yield [Ask((shown, question), max_tokens=SHORT) for question in asked]
    filled = Filled(sample.key, {}, [])
    for name, answer in zip(lacks, answers, strict=True):
        _read(filled, name, answer.text)
    return filled


def _read(filled: Filled, name: str, text: str) -> None:
    try:
        filled.texts[name] = read_requirement(text) if name == "requirement" else read_task(text, NAMES)
    except Rejected as rejected:
        filled.rejected.append(f"{name}: {rejected}")


def _line(line: ItemLine, filled: Filled | None) -> dict[str, Any]:
    """A line with what is filled in; other keys are as they are."""
    return line.model_dump(by_alias=False, exclude_unset=True) | (filled.texts if filled else {})
