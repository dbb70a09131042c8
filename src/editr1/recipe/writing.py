"""The items of one picture: a talk in which the model writes instructions, and then says whether they make sense.

The picture's task types are drawn in an order of its own. Where one of them comes to nothing, the next one takes its
place. All draws follow from the seed and the picture's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL.Image import Image

from editr1.data.pictures import shrink
from editr1.data.seeds import derive_seed, key_seed
from editr1.judges.base import Answer, Ask
from editr1.judges.methods import METHODS
from editr1.recipe.answers import Rejected, Written, read_written
from editr1.recipe.asking import Talk
from editr1.recipe.boxes import Box, crop, with_red_box
from editr1.recipe.library import SHOWN, Found, Library, Photo
from editr1.recipe.words import TASKS, Words, load_words

WRITING = 300  # tokens of an answer with instruction and requirement
TEMPERATURE = 0.7  # of writing, so that not every car becomes red
OTHERS = 3  # pictures that are looked at for a reference
SENSE = METHODS["yes_no"]
SENSE_LEAST = 0.5  # probability of yes from which on an instruction is taken


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is made of every picture.

    Attributes:
        seed: Seed of all draws.
        tasks: Task types, of `TASKS`.
        per_picture: Items per picture, each of another type.
        sizes: Least and greatest share of the picture that an object's box covers.
    """

    seed: int = 0
    tasks: tuple[str, ...] = tuple(TASKS)
    per_picture: int = 3
    sizes: tuple[float, float] = (0.01, 0.5)


@dataclass(frozen=True)
class Draft:
    """What is to become an item.

    Attributes:
        task: Its type.
        source: The picture to edit.
        box: The object, if the edit is of one.
        other: An object of another picture, cut out, with its name; if the edit uses one.
    """

    task: str
    source: Image
    box: Box | None = None
    other: tuple[str, Image] | None = None


@dataclass
class Outcome:
    """What comes of one picture: its objects, items, and the reasons why there are no others, by task type."""

    found: Found
    items: list[tuple[Draft, Written]] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def rejecting(self, task: str) -> Iterator[None]:
        """A block that may raise `Rejected` for an item of this type."""
        try:
            yield
        except Rejected as rejected:
            self.rejected.append((task, str(rejected)))


def write_items(photo: Photo, library: Library, recipe: Recipe) -> Talk[Outcome]:
    """The items of a picture."""
    outcome = Outcome((yield from library.find(photo)))
    order = _rng(recipe.seed, photo.name).permutation(len(recipe.tasks))
    left = [recipe.tasks[place] for place in order]
    while left and (missing := recipe.per_picture - len(outcome.items)):
        turn, left = left[:missing], left[missing:]
        begun: list[Draft] = []
        for task in turn:
            with outcome.rejecting(task):
                begun.append((yield from _begin(task, photo, outcome.found, library, recipe)))
        written = yield from _write(begun, photo.name, outcome, recipe.seed)
        yield from _check(written, outcome)
    return outcome


def _begin(task: str, photo: Photo, found: Found, library: Library, recipe: Recipe) -> Talk[Draft]:
    """The pictures and the object of an item; `Rejected` if they are not there."""
    needs, rng = TASKS[task], _rng(recipe.seed, photo.name, task)
    if needs.needs_object and not found.boxes:
        raise Rejected("no object of a good size")
    box = _one(found.boxes, rng) if needs.needs_object else None
    source = with_red_box(photo.image, box) if box is not None and needs.drawn else photo.image
    other = (yield from _other(photo.name, library, recipe.seed, rng)) if needs.needs_other else None
    return Draft(task, source, box, other)


def _other(name: str, library: Library, seed: int, rng: np.random.Generator) -> Talk[tuple[str, Image]]:
    """An object of another picture: its name, and it cut out; `Rejected` if there is none."""
    for photo in library.others(name, seed, OTHERS):
        if boxes := (yield from library.find(photo)).boxes:
            box = _one(boxes, rng)
            return box.label, crop(photo.image, box)
    raise Rejected("no object in another picture")


def _write(begun: list[Draft], name: str, outcome: Outcome, seed: int) -> Talk[list[tuple[Draft, Written]]]:
    """The drafts with their texts; those without are rejected."""
    words, labels = load_words(), list(dict.fromkeys(box.label for box in outcome.found.boxes))
    answers = yield [_writing(words, draft, labels, name, seed) for draft in begun]
    written = []
    for draft, answer in zip(begun, answers, strict=True):
        with outcome.rejecting(draft.task):
            written.append((draft, read_written(answer.text, TASKS[draft.task])))
    return written


def _check(written: list[tuple[Draft, Written]], outcome: Outcome) -> Talk[None]:
    """Take what makes sense; the rest is rejected."""
    answers = yield [_sense(load_words(), *item) for item in written]
    for (draft, texts), answer in zip(written, answers, strict=True):
        if (reason := _nonsense(answer)) is None:
            outcome.items.append((draft, texts))
        else:
            outcome.rejected.append((draft.task, reason))


def _nonsense(answer: Answer) -> str | None:
    """Why an instruction is not taken."""
    score = SENSE.read(answer, (0, 1))
    if score.value is None:
        return "sense: neither yes nor no"
    return None if score.value >= SENSE_LEAST else "makes no sense"


def _writing(words: Words, draft: Draft, labels: list[str], name: str, seed: int) -> Ask:
    """The question for the texts of an item."""
    opening = words.opening.format(task=draft.task, what=words.tasks[draft.task])
    answer = words.answer.format(labels=", ".join(labels) or "not listed", more=words.more.get(draft.task, ""))
    asked = derive_seed(seed, "recipe", key_seed(name), 1 + [*TASKS].index(draft.task)) % 2**31
    parts = (opening, *_shown(words, draft), answer)
    return Ask(parts, max_tokens=WRITING, temperature=TEMPERATURE, seed=asked)


def _sense(words: Words, draft: Draft, texts: Written) -> Ask:
    """The question whether an item makes sense."""
    question = words.sense.format(instruction=texts.instruction, requirement=texts.requirement)
    choices = SENSE.choices((0, 1))
    return Ask((*_shown(words, draft), question), choices=choices, any_spelling=SENSE.any_spelling)


def _shown(words: Words, draft: Draft) -> Iterator[str | Image]:
    """The pictures of an item with their captions."""
    yield from (words.picture, shrink(draft.source, SHOWN))
    if draft.box is not None:
        yield from (words.object.format(label=draft.box.label), shrink(crop(draft.source, draft.box), SHOWN))
    if draft.other is not None:
        label, image = draft.other
        yield from (words.other.format(label=label), shrink(image, SHOWN))


def _one(boxes: tuple[Box, ...], rng: np.random.Generator) -> Box:
    return boxes[int(rng.integers(len(boxes)))]


def _rng(seed: int, name: str, task: str | None = None) -> np.random.Generator:
    """The draws of a picture, or of one task type of it."""
    places = () if task is None else (1 + [*TASKS].index(task),)
    return np.random.default_rng(derive_seed(seed, "recipe", key_seed(name), *places))
