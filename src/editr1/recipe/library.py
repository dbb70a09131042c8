"""The user's pictures: which there are, what is in them, and which one goes with another."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from editr1.data.pictures import SUFFIXES, decode, shrink
from editr1.data.seeds import key_seed
from editr1.errors import UserError
from editr1.judges.base import Ask
from editr1.recipe.answers import OBJECTS_MAX, Rejected, read_objects
from editr1.recipe.asking import Talk
from editr1.recipe.boxes import Box, Placed, kept
from editr1.recipe.words import load_words

SHOWN = 1024 * 1024  # pixels of a picture that a model is shown, at most
LISTING = 768  # tokens of an answer that lists objects


@dataclass(frozen=True)
class Photo:
    """A picture of the user.

    Attributes:
        name: Path inside the folder of pictures.
        content: Bytes of its file.
        image: The picture, upright, RGB.
    """

    name: str
    content: bytes
    image: Image

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Found:
    """The objects in a picture.

    Attributes:
        boxes: Those of a good size.
        dropped: Number of the others by reason.
    """

    boxes: tuple[Box, ...]
    dropped: Mapping[str, int]


def picture_names(folder: Path) -> list[str]:
    """The picture files in a folder and those inside it, by path, sorted; hidden ones are left out.

    Raises:
        UserError: There is none.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise UserError(f"{folder}: there is no picture in it; give a folder with {', '.join(sorted(SUFFIXES))} files")
    for name in names:
        if not name.isprintable():
            raise UserError(f"{folder}: a picture is called {name!r}, with letters that are no text; rename it")
    return names


class Library:
    """A folder of pictures and the boxes in them.

    Args:
        folder: The folder.
        names: The pictures in it.
        given: Boxes by picture, out of a file; a picture without an entry has none. None to find them.
        detect: Finds boxes; None to ask the model.
        sizes: Least and greatest share of the picture that a box covers.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        given: Mapping[str, Sequence[Placed]] | None,
        detect: Callable[[Image], list[Box]] | None,
        sizes: tuple[float, float],
    ) -> None:
        self.folder, self.names = folder, names
        self._given, self._detect, self._sizes = given, detect, sizes
        self._found: dict[str, Found] = {}
        self._ring = sorted((key_seed(name), name) for name in names)

    def read(self, name: str) -> Photo:
        """A picture; a UserError if it cannot be read."""
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"{path}: it is no file; leave it out")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error}; replace it or leave it out") from error
        return Photo(name, content, decode(content, str(path)))

    def find(self, photo: Photo) -> Talk[Found]:
        """The objects in a picture; the model is asked once."""
        if photo.name not in self._found:
            boxes, dropped = yield from self._all(photo)
            good, sized = kept(boxes, *self._sizes)
            self._found[photo.name] = Found(tuple(good), dict(dropped + sized))
        return self._found[photo.name]

    def others(self, name: str, seed: int, most: int) -> Iterator[Photo]:
        """Up to `most` other pictures that are drawn for a picture; a further one in the folder changes few draws."""
        start = bisect(self._ring, (key_seed(f"{seed}/{name}/other"), ""))
        places = ((start + step) % len(self._ring) for step in range(min(most + 1, len(self._ring))))
        others = [other for _, other in (self._ring[place] for place in places) if other != name]
        for other in others[:most]:
            photo = None
            with suppress(UserError):  # it is told when its own turn comes
                photo = self.read(other)
            if photo is not None:
                yield photo

    def _all(self, photo: Photo) -> Talk[tuple[list[Box], Counter[str]]]:
        """The boxes of any size, and what is none."""
        if self._detect is not None:
            return self._detect(photo.image), Counter()
        if self._given is not None:
            placed = self._given.get(photo.name, ())
            boxes = [box for one in placed if (box := one.on(photo.image.size)) is not None]
            return boxes, +Counter({"no box": len(placed) - len(boxes)})
        question = load_words().objects.format(most=OBJECTS_MAX)
        (answer,) = yield [Ask((shrink(photo.image, SHOWN), question), max_tokens=LISTING)]
        try:
            boxes, wrong = read_objects(answer.text)
        except Rejected as rejected:
            return [], Counter({f"answer: {rejected}": 1})
        return boxes, +Counter({"no box": wrong})
