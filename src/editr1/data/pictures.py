"""Pictures from and to bytes: upright, RGB, and one line about what cannot be read.

Files are read as data of strangers: in a few formats only, up to a number of pixels, and whatever a decoder stumbles
over is one line.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image as Images
from PIL import ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.Image import Image
from PIL.PngImagePlugin import PngImageFile

from editr1.errors import UserError, first_line

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
"""Formats that are read; others of Pillow start programs (EPS) or are rarely tested against damaged files."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp"})
"""How names of their files end."""
PIXELS_MAX = 2**26
"""Largest area of a picture: 200 MB as RGB."""
UNCLEAR = {"F": "floating-point levels", "I": "32-bit levels", "LAB": "Lab colours"}
"""Modes that cannot be brought to 8-bit RGB without a guess."""
ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""Last bytes of a file that is whole."""
UPRIGHT_LAST = 4
"""Largest orientation of EXIF that keeps width and height; others turn the picture by 90 degrees."""
ENDS_READ = 2**15
"""Bytes at both ends of an embedded picture by which it is known."""


class Embedded(ABC):
    """A picture file inside of a file that holds many; hashable, and `str` names it.

    Attributes:
        file: The file that holds it.
    """

    file: Path

    @abstractmethod
    def size(self) -> int:
        """Number of its bytes."""

    @abstractmethod
    def part(self, start: int, stop: int) -> bytes:
        """Its bytes from `start` to before `stop`."""

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """Its bytes as an open file."""
        return io.BytesIO(self.part(0, self.size()))

    def stat(self) -> os.stat_result:
        """Size and times of the file that holds it."""
        return self.file.stat()

    def content_key(self) -> str:
        """The same for equal contents, from the length, the first and the last bytes: it costs little to read."""
        size = self.size()
        ends = self.part(0, min(ENDS_READ, size)) + self.part(max(0, size - ENDS_READ), size)
        return f"{size}-{hashlib.sha256(ends).hexdigest()[:32]}"


Picture = Path | Embedded
"""A picture on the disk."""


class PictureError(UserError):
    """A picture that cannot be used.

    Attributes:
        kind: missing, outside, broken or bomb.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


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


def read_picture(file: Picture | BinaryIO, complaint: str, remedy: str = "") -> Image:
    """The picture in a file, upright as its EXIF data say, RGB; what is transparent is on white.

    If it cannot be read, the message of the UserError begins with `complaint` and ends with `remedy`.
    """
    with _opened(file, complaint, remedy) as image:
        _scale_transparency(image)
        return _rgb(ImageOps.exif_transpose(image))


def picture_size(file: Picture, complaint: str, remedy: str = "") -> tuple[int, int]:
    """Width and height by the header of a picture file; one whose last bytes are unusual is decoded to be sure.

    Raises:
        UserError: It is no picture that `read_picture` takes, or it is cut short.
    """
    return _whole(file, complaint, remedy).size


def upright_size(file: Picture, complaint: str) -> tuple[int, int]:
    """Width and height of what `read_picture` returns, by the header of the file; errors as there."""
    with _opened(file, complaint, "") as image:
        width, height = image.size
        return (height, width) if image.getexif().get(Base.Orientation, 1) > UPRIGHT_LAST else (width, height)


def picture_format(file: Picture, complaint: str, remedy: str = "") -> str:
    """One of `FORMATS`, of a picture file that is looked at as `picture_size` does."""
    return _whole(file, complaint, remedy).format or ""


def _whole(file: Picture, complaint: str, remedy: str) -> Image:
    with _opened(file, complaint, remedy) as image, file.open("rb") as content:
        end = ENDS.get(image.format or "", b"")
        content.seek(-len(end), os.SEEK_END)
        if content.read() != end:
            image.load()
        return image


def header_size(content: bytes, complaint: str) -> tuple[int, int]:
    """Width and height of an image file by its header; a UserError if `read_picture` does not take that."""
    with _opened(io.BytesIO(content), complaint, "") as image:
        return image.size


@contextmanager
def _opened(file: Picture | BinaryIO, complaint: str, remedy: str) -> Iterator[Image]:
    """A picture file whose pixels are not decoded yet; whatever goes wrong with it inside is a UserError."""
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():
            raise OSError("it is no file")
        with Images.open(file.open() if isinstance(file, Embedded) else file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > PIXELS_MAX:
                raise Images.DecompressionBombError
            if image.mode in UNCLEAR:
                raise ValueError(f"it has {UNCLEAR[image.mode]}; save it with 8 bits per channel")
            yield image
    except Exception as error:  # decoders raise whatever they stumble over in a damaged file
        kind = "bomb" if isinstance(error, Images.DecompressionBombError) else "broken"
        raise PictureError(f"{complaint}: {_words(error)}{remedy}", kind) from error


def _words(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, or damaged"
    if isinstance(error, Images.DecompressionBombError):  # Pillow has a limit too
        return f"it has more than {PIXELS_MAX:,} pixels; make it smaller"
    told = isinstance(error, OSError | SyntaxError | ValueError)
    return first_line(error) if told else f"it is damaged ({type(error).__name__})"


def _rgb(image: Image) -> Image:
    """A picture of any mode but the unclear ones as RGB."""
    if image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Images.new("RGBA", image.size, "white")
    return Images.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _scale_transparency(image: Image) -> None:
    """Bring the colour that means transparent, which PNG states with the file's own bits, to the 8 of the pixels."""
    bits = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else None
    clear = image.info.get("transparency")
    if bits in ("L;2", "L;4") and isinstance(clear, int):
        image.info["transparency"] = clear * (85 if bits == "L;2" else 17)
    elif bits == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in clear)  # as Pillow does with the pixels


def _from_16_bits(image: Image) -> Image:
    """Grey levels of 16 bits as the nearest of 8."""
    levels = np.asarray(image).astype(np.uint32)  # height, width
    grey = ((levels + 128) // 257).astype(np.uint8)
    grey[levels == image.info.get("transparency", -1)] = 255
    return Images.fromarray(grey).convert("RGB")


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
    if "\0" in name:
        raise PictureError(f"{where}: there can be no picture {name[:80]!r}", "missing")
    path = Path(os.path.realpath(folder / name))  # three times as fast as Path.resolve
    if not any(path.is_relative_to(os.path.realpath(top)) for top in (folder, root) if top is not None):
        raise PictureError(f"{where}: the picture {name!r} lies outside {root or folder}; {remedy}", "outside")
    return path


def picture_file(folder: Path, name: str, where: str, root: Path | None = None, **remedy: str) -> Path:
    """As `inside`, of a picture that must be there."""
    path = inside(folder, name, where, root, **remedy)
    with suppress(OSError):  # the name is too long
        if path.is_file():
            return path
    raise PictureError(f"{where}: there is no picture {name[:200]!r} in {folder}", "missing")
