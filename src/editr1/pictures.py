"""Pictures from and to bytes: upright, RGB, and one line about what cannot be read."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image as Images
from PIL import ImageOps
from PIL.Image import Image

from editr1.errors import UserError


def png(image: Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def decode(content: bytes, where: str) -> Image:
    """The picture in an image file's bytes, upright, RGB.

    Raises:
        UserError: they are no picture.
    """
    try:
        with Images.open(io.BytesIO(content)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Images.DecompressionBombError) as error:
        raise UserError(f"{where}: cannot read a picture: {error}; replace it or leave it out") from error


def open_picture(path: Path, where: str) -> Image:
    """The picture in a file, upright, RGB.

    Raises:
        UserError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot read the picture {path}: {error}") from error
    return decode(content, f"{where}: {path.name}")
