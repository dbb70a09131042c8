"""Pictures from and to bytes: upright, RGB, and one line about what cannot be read."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import BinaryIO

from PIL import Image as Images
from PIL import ImageOps
from PIL.Image import Image

from editr1.errors import UserError


def png(image: Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png_data_url(image: Image) -> str:
    """A picture as a data URL of a PNG file."""
    return data_url(png(image.convert("RGB")))


def data_url(content: bytes, kind: str = "png") -> str:
    """A picture file's bytes as a data URL; `kind` is "png", "jpeg" or "webp"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def shrink(image: Image, area: int) -> Image:
    """The picture with about `area` pixels in its own shape; one that has no more is returned as it is."""
    width, height = image.size
    if width * height <= area:
        return image
    scale = math.sqrt(area / (width * height))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    return image.resize(size, Images.Resampling.LANCZOS)


def read_picture(file: Path | BinaryIO, complaint: str, remedy: str = "") -> Image:
    """The picture in a file, upright as its EXIF data say, RGB.

    If it cannot be read, the message of the UserError begins with `complaint` and ends with `remedy`.
    """
    try:
        with Images.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Images.DecompressionBombError) as error:
        raise UserError(f"{complaint}: {error}{remedy}") from error


def decode(content: bytes, where: str) -> Image:
    """The picture in an image file's bytes; errors as of `read_picture`."""
    return read_picture(io.BytesIO(content), f"{where}: cannot read a picture", "; replace it or leave it out")


def open_picture(path: Path, where: str) -> Image:
    """The picture in a file that `where` names; errors as of `read_picture`."""
    return read_picture(path, f"{where}: {path.name}: cannot read a picture", "; replace it or leave it out")


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a picture that a data file names; one outside the data's folder is refused."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{where}: the picture {name!r} lies outside {folder}; put it into the folder")
    return path


def picture_file(folder: Path, name: str, where: str) -> Path:
    """As `inside`, of a picture that must be there."""
    path = inside(folder, name, where)
    if not path.is_file():
        raise UserError(f"{where}: there is no picture {name!r} in {folder}")
    return path
