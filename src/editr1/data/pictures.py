"""Pictures from and to bytes: upright, RGB, and one line about what cannot be read."""

from __future__ import annotations

import base64
import io
import math
import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image as Images
from PIL import ImageOps
from PIL.Image import Image

from editr1.errors import UserError

UNREADABLE = (OSError, SyntaxError, ValueError, Images.DecompressionBombError)
"""Errors of Pillow if a picture cannot be read."""
ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""Last bytes of a file that is whole."""


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
    except UNREADABLE as error:
        raise UserError(f"{complaint}: {error}{remedy}") from error


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height by the header of a picture file; one whose last bytes are unusual is decoded to be sure.

    Raises:
        OSError, SyntaxError, ValueError, DecompressionBombError: It is no picture, or it is cut short.
    """
    with Images.open(file) as image, file.open("rb") as content:
        end = ENDS.get(image.format or "", b"")
        content.seek(-len(end), os.SEEK_END)
        if content.read() != end:
            image.load()
        return image.size


def decode(content: bytes, where: str) -> Image:
    """The picture in an image file's bytes; errors as of `read_picture`."""
    return read_picture(io.BytesIO(content), f"{where}: cannot read a picture", "; replace it or leave it out")


def open_picture(path: Path, where: str) -> Image:
    """The picture in a file that `where` names; errors as of `read_picture`."""
    return read_picture(path, f"{where}: {path.name}: cannot read a picture", "; replace it or leave it out")


def inside(
    folder: Path, name: str, where: str, root: Path | None = None, remedy: str = "put it into the folder"
) -> Path:
    """The path of a picture that a data file in `folder` names; one outside this folder and `root` is refused."""
    path = Path(os.path.realpath(folder / name))  # three times as fast as Path.resolve
    if not any(path.is_relative_to(os.path.realpath(top)) for top in (folder, root) if top is not None):
        raise UserError(f"{where}: the picture {name!r} lies outside {root or folder}; {remedy}")
    return path


def picture_file(folder: Path, name: str, where: str, root: Path | None = None, **remedy: str) -> Path:
    """As `inside`, of a picture that must be there."""
    path = inside(folder, name, where, root, **remedy)
    if not path.is_file():
        raise UserError(f"{where}: there is no picture {name!r} in {folder}")
    return path
