"""Boxes around the objects of pictures: out of a file, of any size at first, and as crops and red frames.

A box is in shares of its picture, so that it fits every size of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from PIL import ImageDraw
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from editr1.data.plain_text import plain
from editr1.errors import UserError, first_problem, read_json

LABEL_MAX = 60  # characters
MARGIN = 0.1  # of the box's sides, around a crop
RED = (255, 0, 0)
REMEDY = 'give COCO, or {"picture.jpg": [{"label": "dog", "box": [left, top, right, bottom]}]} in pixels'


@dataclass(frozen=True)
class Box:
    """An object in a picture.

    Attributes:
        label: Its name.
        box: Left, top, right, bottom in [0, 1], in shares of width and height.
    """

    label: str
    box: tuple[float, float, float, float]

    @property
    def area(self) -> float:
        """Share of the picture that it covers, in [0, 1]."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    def pixels(self, size: tuple[int, int], margin: float = 0.0) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in a picture of this size, inside of it; `margin` is in sides of the box."""
        (width, height), (left, top, right, bottom) = size, self.box
        across, down = margin * (right - left), margin * (bottom - top)
        x0, y0 = round(max(0.0, left - across) * width), round(max(0.0, top - down) * height)
        x1, y1 = round(min(1.0, right + across) * width), round(min(1.0, bottom + down) * height)
        x0, y0 = min(x0, width - 1), min(y0, height - 1)
        return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def clean_label(text: str) -> str:
    """A label of strangers in one short line of printable characters; empty if nothing is left."""
    words = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * LABEL_MAX])
    return plain(" ".join(words.split())[:LABEL_MAX].strip())


def clamped(label: str, ends: Sequence[float], width: float, height: float) -> Box | None:
    """The box with these ends, in units of which the picture has `width` and `height`; None if it holds nothing."""
    if not all(map(math.isfinite, ends)):
        return None
    sides = (width, height, width, height)
    left, top, right, bottom = (round(min(max(end / side, 0.0), 1.0), 4) for end, side in zip(ends, sides, strict=True))
    if not (name := clean_label(label)) or left >= right or top >= bottom:
        return None
    return Box(name, (left, top, right, bottom))


def kept(boxes: Iterable[Box], least: float, most: float) -> tuple[list[Box], Counter[str]]:
    """The boxes that cover a share of the picture from `least` to `most`, and how many others there are by reason."""
    good, dropped = [], Counter[str]()
    for box in boxes:
        if box.area < least:
            dropped["too small"] += 1
        elif box.area > most:
            dropped["too large"] += 1
        else:
            good.append(box)
    return good, dropped


def crop(picture: Image, box: Box) -> Image:
    """The object, with a little of what is around it."""
    return picture.crop(box.pixels(picture.size, MARGIN))


def with_red_box(picture: Image, box: Box) -> Image:
    """The picture with a red frame around the object."""
    drawn = picture.copy()
    left, top, right, bottom = box.pixels(picture.size)
    ImageDraw.Draw(drawn).rectangle(
        (left, top, right - 1, bottom - 1), outline=RED, width=max(2, min(drawn.size) // 150)
    )
    return drawn


Ends = Annotated[list[Annotated[float, Field(strict=True, allow_inf_nan=False)]], Field(min_length=4, max_length=4)]
Name = Annotated[str, Field(min_length=1)]


class _Named(BaseModel):
    label: Name
    box: Ends


class _Picture(BaseModel):
    id: int | str
    file_name: Name
    width: float = Field(gt=0)
    height: float = Field(gt=0)


class _Category(BaseModel):
    id: int | str
    name: Name


class _Annotation(BaseModel):
    image_id: int | str
    category_id: int | str
    bbox: Ends


class _Coco(BaseModel):
    """What is read of a COCO file; `bbox` is left, top, width, height."""

    model_config = ConfigDict(extra="ignore")

    images: list[_Picture]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class Placed:
    """A box as a file has it.

    Attributes:
        label: Name of the object.
        ends: Left, top, right, bottom.
        size: Width and height of the picture in the same units; None for pixels of the picture itself.
    """

    label: str
    ends: tuple[float, float, float, float]
    size: tuple[float, float] | None = None

    def on(self, picture: tuple[int, int]) -> Box | None:
        """The box in a picture of this size."""
        return clamped(self.label, self.ends, *(self.size or picture))


def read_boxes(file: Path) -> dict[str, list[Placed]]:
    """The boxes in a COCO or a simple JSON file, by the path of their picture inside its folder.

    Raises:
        UserError: The file is neither, or it contradicts itself.
    """
    content = read_json(file)
    try:
        if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
            return _coco(_Coco.model_validate(content), file)
        simple = TypeAdapter(dict[str, list[_Named]]).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error)}; {REMEDY}") from error
    return {_path(name): [Placed(one.label, _four(one.box)) for one in some] for name, some in simple.items()}


def _coco(content: _Coco, file: Path) -> dict[str, list[Placed]]:
    pictures = {picture.id: picture for picture in content.images}
    labels = {category.id: category.name for category in content.categories}
    boxes: dict[str, list[Placed]] = {_path(picture.file_name): [] for picture in content.images}
    for number, one in enumerate(content.annotations):
        if one.image_id not in pictures or one.category_id not in labels:
            raise UserError(f"{file}: annotations.{number} is of an image or a category that the file does not list")
        picture, (left, top, width, height) = pictures[one.image_id], one.bbox
        ends = (left, top, left + width, top + height)
        placed = Placed(labels[one.category_id], ends, (picture.width, picture.height))
        boxes[_path(picture.file_name)].append(placed)
    return boxes


def _path(name: str) -> str:
    return PurePosixPath(name).as_posix()


def _four(values: Sequence[Any]) -> tuple[float, float, float, float]:
    left, top, right, bottom = values
    return left, top, right, bottom
