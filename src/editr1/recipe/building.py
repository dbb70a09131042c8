"""`editr1 data build`: a folder of data from a folder of pictures.

OUT/answers.jsonl grows by a line per picture, as soon as its items are there; their files lie in OUT before it. When
no picture is left, data.jsonl, counts.json and sheet.png follow from these lines, sorted: the folder of a build that
was stopped and went on is equal, byte for byte, to that of one that was not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL.Image import Image

from editr1.data.hashes import sha256_of
from editr1.data.pictures import png
from editr1.data.samples import ItemLine
from editr1.devices import pick_device
from editr1.errors import UserError, collect, tell
from editr1.files import JsonLines, file_name, loader, locked, make_folder, write_file
from editr1.judges.base import MLLM
from editr1.recipe.answers import Written
from editr1.recipe.asking import Ended, Talk, Unanswered, converse
from editr1.recipe.boxes import Box, read_boxes
from editr1.recipe.detector import Detector
from editr1.recipe.library import Library, Photo, picture_names
from editr1.recipe.sheet import contact_sheet
from editr1.recipe.words import load_words
from editr1.recipe.writing import Draft, Outcome, Recipe, write_items

ANSWERS, DATA, COUNTS, SHEET = "answers.jsonl", "data.jsonl", "counts.json", "sheet.png"
PATIENCE = 8  # pictures in a row without an answer, after which the model counts as gone


@dataclass(frozen=True)
class Row:
    """One line of answers.jsonl: what came of a picture.

    Attributes:
        picture: Path in the folder of pictures.
        sha256: Of its file.
        boxes: Its objects.
        dropped: Number of boxes that are not among them, by reason.
        items: Lines of data.jsonl.
        rejected: Task type and reason of what became no item.
    """

    picture: str
    sha256: str
    boxes: list[Box]
    dropped: dict[str, int]
    items: list[ItemLine]
    rejected: list[tuple[str, str]]

    def line(self) -> dict[str, Any]:
        """The row as JSON."""
        return {**asdict(self), "items": self.lines()}

    def lines(self) -> list[dict[str, Any]]:
        """The items as JSON."""
        return [item.model_dump(exclude_unset=True) for item in self.items]


@dataclass(frozen=True)
class BoxSource:
    """Where boxes come from: a file, or a detector with its name, or else the model."""

    file: Path | None = None
    detector: Callable[[Image], list[Box]] | None = None
    name: str = "the model"

    @classmethod
    def of_detector(cls, folder: Path) -> BoxSource:
        """The detector in a folder, on a GPU if there is one."""
        detector = Detector(folder, pick_device("auto"))
        return cls(detector=detector, name=f"detector {detector.name}")

    @property
    def described(self) -> str:
        """The source in a line, by which another one is told."""
        return f"file {sha256_of(self.file)}" if self.file else self.name


def build(
    pictures: Path,
    out: Path,
    model: MLLM,
    recipe: Recipe,
    boxes: BoxSource | None = None,
    on_picture: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Make the data, or go on making it; what counts.json holds.

    Args:
        pictures: Folder of the pictures.
        out: Folder of the data.
        model: Writes and checks the instructions.
        recipe: What is made.
        boxes: Where boxes come from; None to ask the model.
        on_picture: Called once for every picture that is done.

    Raises:
        UserError: There is no picture, the folder holds other data, or pictures have no answer; they are tried again
            by the next call.
    """
    _refuse_each_inside_other(pictures, out)
    boxes = boxes or BoxSource()
    names = picture_names(pictures)
    given = _given(boxes.file, names)
    with locked(out / ".lock"):
        store = _open_store(out, model.name, recipe, boxes)
        library = Library(pictures, names, given, boxes.detector, recipe.sizes)
        done, damaged = _still_true(store.rows, pictures, out), list[str]()
        for _ in done:
            on_picture()
        talks = _talks(library, recipe, [name for name in names if name not in done], damaged)
        silent = _collect(converse(model, talks), out, store, done, on_picture)
        rows = [done[name] for name in names if name in done]
        store.replace(row.line() for row in rows)
        counts = _write(out, rows, len(damaged), len(names))
    if silent:
        raise UserError(
            f"{len(silent)} of {len(names)} pictures have no answer ({silent[0].name}: {silent[0].reason}); {out} "
            "holds what was made of the others: run the same command again"
        )
    return counts


def _refuse_each_inside_other(pictures: Path, out: Path) -> None:
    if not pictures.is_dir():
        raise UserError(f"{pictures}: there is no such folder; give one with pictures")
    inner, outer = out.resolve(), pictures.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(f"--out {out}: neither it nor {pictures} may be inside the other; choose another folder")
    if (out / DATA).exists() and not (out / ANSWERS).exists():
        raise UserError(f"--out {out}: there is a {DATA} of something else in it; choose another folder")


def _given(file: Path | None, names: Sequence[str]) -> Mapping[str, Any] | None:
    """The boxes in a file, of which some are in these pictures; None without a file."""
    if file is None:
        return None
    given = read_boxes(file)
    if not given.keys() & set(names):
        listed = next(iter(given), "none")
        raise UserError(f"{file}: no picture is called as in it ({listed}); name paths inside the folder of pictures")
    return given


def _open_store(out: Path, model: str, recipe: Recipe, boxes: BoxSource) -> JsonLines[Row]:
    settings = json.loads(json.dumps(asdict(recipe)))
    head = {"model": model, "words": load_words().version, "boxes": boxes.described, **settings}
    remedy = "give the same settings, or choose another folder with --out"
    return JsonLines(make_folder(out) / ANSWERS, "answers about pictures", remedy, head=head, load=loader(Row))


def _still_true(rows: Sequence[Row], pictures: Path, out: Path) -> dict[str, Row]:
    """The rows of pictures that are as they were, and whose items have their pictures."""
    there = [row for row in rows if (pictures / row.picture).is_file()]
    same = [row for row in there if sha256_of(pictures / row.picture) == row.sha256]
    return {row.picture: row for row in same if all((out / name).is_file() for name in _files(row))}


def _files(row: Row) -> set[str]:
    """The pictures of its items."""
    return {name for item in row.items for name in (item.source, *item.references)}


def _talks(
    library: Library, recipe: Recipe, names: Sequence[str], damaged: list[str]
) -> Iterator[tuple[str, Talk[tuple[Photo, Outcome]]]]:
    """One talk per picture; what is wrong with those that cannot be read is told, and appended to `damaged`."""
    for name in names:
        photos = list[Photo]()
        with collect(damaged):
            photos.append(library.read(name))
        if not photos:
            tell(damaged[-1])
        for photo in photos:
            yield name, _talk(photo, library, recipe)


def _talk(photo: Photo, library: Library, recipe: Recipe) -> Talk[tuple[Photo, Outcome]]:
    return photo, (yield from write_items(photo, library, recipe))


def _collect(
    ends: Iterator[Ended[tuple[Photo, Outcome]] | Unanswered],
    out: Path,
    store: JsonLines[Row],
    done: dict[str, Row],
    on_picture: Callable[[], object],
) -> list[Unanswered]:
    """Write each picture's items and its row as they come; the pictures that have no answer."""
    silent, in_a_row = list[Unanswered](), 0
    for end in ends:
        if isinstance(end, Unanswered):
            tell(f"{end.name}: no answer: {end.reason}")
            silent.append(end)
            in_a_row += 1
            if in_a_row == PATIENCE:
                raise UserError(
                    f"{PATIENCE} pictures in a row have no answer ({end.reason}); mend the model's server, then run "
                    "the same command again: what is done is kept"
                )
            continue
        in_a_row = 0
        done[end.name] = _save(out, *end.value)
        store.append([done[end.name].line()])
        on_picture()
    return silent


def _save(out: Path, photo: Photo, outcome: Outcome) -> Row:
    """Write the pictures of the items; the row that names them."""
    stem = file_name(photo.name)
    suffix = PurePosixPath(photo.name).suffix.lower()
    source = f"pictures/{stem if stem.endswith(suffix) else stem + suffix}"
    if outcome.items:
        write_file(out / source, photo.content)
    items = [_item(out, photo, source, stem, *item) for item in outcome.items]
    found = outcome.found
    return Row(photo.name, photo.sha256, list(found.boxes), dict(found.dropped), items, outcome.rejected)


def _item(out: Path, photo: Photo, source: str, stem: str, draft: Draft, texts: Written) -> ItemLine:
    """An item, whose own pictures are written."""
    line: dict[str, Any] = {"key": f"{photo.name}:{draft.task}", "task": draft.task, "source": source}
    if draft.source is not photo.image:
        line |= {"source": _write_png(out, f"boxed/{stem}.png", draft.source), "origin": source}
    if draft.other is not None:
        line["references"] = [_write_png(out, f"crops/{stem}.png", draft.other[1])]
    return ItemLine(**line, instruction=texts.instruction, requirement=texts.requirement)


def _write_png(out: Path, name: str, picture: Image) -> str:
    write_file(out / name, png(picture))
    return name


def _write(out: Path, rows: Sequence[Row], damaged: int, pictures: int) -> dict[str, Any]:
    """Write what follows from the rows; the counts."""
    lines = [line for row in rows for line in row.lines()]
    counts = count(rows, damaged, pictures)
    write_file(out / DATA, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    write_file(out / COUNTS, json.dumps(counts, indent=1).encode())
    write_file(out / SHEET, png(contact_sheet([item for row in rows for item in row.items], out)))
    return counts


def count(rows: Sequence[Row], damaged: int, pictures: int) -> dict[str, Any]:
    """Numbers of pictures, items by task type, boxes, and of what was rejected by task type and reason."""
    dropped: Counter[str] = Counter()
    rejected: dict[str, Counter[str]] = {}
    for row in rows:
        dropped.update(row.dropped)
        for task, reason in row.rejected:
            rejected.setdefault(task, Counter())[reason] += 1
    tasks = Counter(item.task for row in rows for item in row.items)
    return {
        "pictures": pictures,
        "answered": len(rows),
        "unreadable": damaged,
        "items": tasks.total(),
        "tasks": dict(sorted(tasks.items())),
        "boxes": sum(len(row.boxes) for row in rows),
        "boxes_dropped": dict(sorted(dropped.items())),
        "rejected": {task: dict(sorted(reasons.items())) for task, reasons in sorted(rejected.items())},
    }
