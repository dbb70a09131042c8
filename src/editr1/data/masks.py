"""What an edit may change of its source: a mask, from a picture or from boxes. All outside of it must stay.

A mask is a picture of the source's size in mode "L": 255 where the edit may change something, 0 where it must not. One
that is all white says that the edit is of the whole picture.
"""

from __future__ import annotations

import math
import zlib
from typing import Annotated, Any, Literal

from PIL import Image as Images
from PIL import ImageChops, ImageDraw, ImageFilter, ImageOps
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from editr1.data.pictures import Picture, read_picture
from editr1.errors import UserError

BLACK, WHITE = 0, 255
HALF = 128
"""Grey from which on a pixel of a mask's picture is white."""
End = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Box = tuple[End, End, End, End]
Size = tuple[int, int]


class Boxes(BaseModel):
    """The mask of an item as boxes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Literal["pixels", "share"]
    """Pixels of the upright source, or shares of its width and height in [0, 1]."""
    boxes: tuple[Box, ...] = Field(min_length=1, max_length=1000)
    """Left, top, right, bottom of each; right and bottom are not inside."""

    @field_validator("boxes")
    @classmethod
    def _holds_something(cls, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        for left, top, right, bottom in boxes:
            if left >= right or top >= bottom:
                raise ValueError(
                    f"a box is left, top, right, bottom; [{left:g}, {top:g}, {right:g}, {bottom:g}] is empty"
                )
        return boxes

    @model_validator(mode="after")
    def _shares(self) -> Boxes:
        if self.unit == "share" and (end := max(map(max, self.boxes))) > 1:
            raise ValueError(f'{end:g} is no share of the picture; shares are in [0, 1], or "unit" is "pixels"')
        return self

    def draw(self, size: Size) -> Image:
        """The mask of a picture of this size; every pixel that a box touches is white.

        Raises:
            UserError: A box is outside of the picture.
        """
        mask = Images.new("L", size, BLACK)
        scale = (*size, *size) if self.unit == "share" else (1, 1, 1, 1)
        for box in self.boxes:
            left, top, right, bottom = (end * side for end, side in zip(box, scale, strict=True))
            if left >= size[0] or top >= size[1]:
                raise UserError(f"the box {list(box)} is outside of a picture of {size[0]}x{size[1]} pixels")
            corners = math.floor(left), math.floor(top), math.ceil(right) - 1, math.ceil(bottom) - 1
            ImageDraw.Draw(mask).rectangle(corners, fill=WHITE)
        return mask


def _form(value: Any) -> str:
    return "picture" if isinstance(value, str) else "boxes"


Given = Annotated[
    Annotated[str, Field(min_length=1), Tag("picture")] | Annotated[Boxes, Tag("boxes")], Discriminator(_form)
]
"""How data give a mask: the path of a picture, or boxes."""


def open_mask(mask: Picture | Boxes, size: Size, key: str) -> Image:
    """The mask of item `key`, whose source has this size.

    Raises:
        UserError: It cannot be read, has another size, or a box is outside of the source.
    """
    if isinstance(mask, Boxes):
        try:
            return mask.draw(size)
        except UserError as error:
            raise UserError(f"mask of item {key!r}: {error}; mend the box, or its unit") from error
    picture = read_picture(mask, f"cannot read the mask {mask} of item {key!r}", "; replace it or leave it out")
    if picture.size != size:
        words = " pixels, its source ".join(f"{width}x{height}" for width, height in (picture.size, size))
        raise UserError(f"the mask {mask} of item {key!r} has {words}; make it of the source's size")
    return whiten(picture)


def whiten(picture: Image) -> Image:
    """A mask's picture as a mask: white from middle grey on, black below."""
    return picture.convert("L").point(lambda grey: WHITE if grey >= HALF else BLACK)


def outlined(picture: Image, mask: Image) -> Image:
    """The picture, RGB, with a line inside of the edge of what its mask has white: white, and black within that.

    The mask may have another size, in the same shape. Where it is all white, the line is the frame of the picture.
    """
    places = mask.resize(picture.size, Images.Resampling.BOX).point(lambda grey: WHITE if grey else BLACK)
    rings = [ImageOps.expand(places, 2, BLACK)]  # beyond the picture, nothing is white
    for _ in range(2):
        rings.append(rings[-1].filter(ImageFilter.MinFilter(3)))
    drawn = picture.convert("RGB")
    for outer, inner, colour in zip(rings, rings[1:], ("white", "black"), strict=False):
        drawn.paste(colour, mask=ImageOps.crop(ImageChops.subtract(outer, inner), 2))
    return drawn


def digest_of(mask: Image) -> str:
    """What tells two masks apart: 8 hexadecimal digits."""
    return f"{zlib.crc32(mask.tobytes(), zlib.crc32(str(mask.size).encode())):08x}"
