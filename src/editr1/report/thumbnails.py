"""Pictures inside a page: small data URLs, so that the page refers to nothing outside itself."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image as Images
from PIL import ImageOps
from PIL.Image import Image

from editr1.data.masks import outlined
from editr1.data.pictures import data_url, picture_file, read_picture
from editr1.errors import UserError

SIDE = 256  # pixels of a picture's longer side: larger ones are shrunk, small ones enlarged by a whole number
QUALITY = 85  # of the JPEG in the page; the files beside it are lossless


def picture_url(image: Image) -> str:
    """A picture as a PNG data URL, at most `SIDE` pixels a side and, by whole factors, close to it."""
    return _encode(_small(image), "PNG", optimize=True)


def thumbnail(folder: Path, name: str) -> str:
    """A picture of a folder as a data URL; "" if it is missing or outside the folder."""
    try:
        path = picture_file(folder, name, "")
    except UserError:
        return ""
    return small_url(read_picture(path, f"cannot read the picture {path}"))


def small_url(image: Image, mask: Image | None = None) -> str:
    """A picture as a data URL of at most `SIDE` pixels a side; one that must be shrunk for it is a JPEG.

    Its mask, if it has one, is outlined.
    """
    small = _small(image) if mask is None else outlined(_small(image), mask)
    if max(image.size) <= SIDE:
        return _encode(small, "PNG", optimize=True)
    return _encode(small, "JPEG", quality=QUALITY)


def _small(image: Image) -> Image:
    factor = SIDE // max(image.size)
    if factor:
        return ImageOps.scale(image, factor, Images.Resampling.NEAREST)
    return ImageOps.contain(image, (SIDE, SIDE))


def _encode(image: Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return data_url(buffer.getvalue(), kind.lower())
