"""Pictures of every kind become the RGB picture that a person sees."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1.data import pictures
from editr1.data.pictures import decode, picture_size
from editr1.errors import UserError


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_head(width: int, height: int) -> bytes:
    """A PNG file with a header and no pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT", b"IEND"]
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def rows(content: bytes) -> list[Any]:
    image = decode(content, "a")
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_levels(kind: str) -> None:
    levels = np.array([[0, 257 * 40, 257 * 127, 65535]], np.uint16)
    assert rows(file_of(Image.fromarray(levels), kind)) == [[[level] * 3 for level in (0, 40, 127, 255)]]


def test_what_is_transparent_is_on_white() -> None:
    colours = [[(200, 10, 30, 255), (200, 10, 30, 0), (0, 0, 0, 51)]]
    image = Image.fromarray(np.array(colours, np.uint8))
    seen = [[[200, 10, 30], [255, 255, 255], [204, 204, 204]]]  # 0.2 * 0 + 0.8 * 255
    for kind in ("PNG", "TIFF"):
        assert rows(file_of(image, kind)) == seen
    assert rows(file_of(image, "WEBP", lossless=True)) == seen
    assert rows(file_of(Image.fromarray(np.array([[(9, 255), (9, 0)]], np.uint8)))) == [[[9] * 3, [255] * 3]]


def test_a_colour_that_means_transparent_is_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 10, 30, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert rows(file_of(palette, kind, transparency=1)) == [[[200, 10, 30], [255] * 3]]
    colours = Image.fromarray(np.array([[(1, 2, 3), (4, 5, 6)]], np.uint8))
    assert rows(file_of(colours, transparency=(4, 5, 6))) == [[[1, 2, 3], [255] * 3]]
    grey = Image.fromarray(np.array([[257, 1000]], np.uint16))
    grey.info["transparency"] = 1000
    assert np.asarray(pictures._rgb(grey)).tolist() == [[[1] * 3, [255] * 3]]


def test_inks_become_the_colours_that_they_print() -> None:
    inks = [[(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 51)]]
    image = Image.fromarray(np.array(inks, np.uint8), "CMYK")
    assert rows(file_of(image, "TIFF")) == [[[255] * 3, [0, 255, 255], [255, 0, 0], [0] * 3, [204] * 3]]
    jpeg = np.array(rows(file_of(image.resize((80, 16), Image.Resampling.NEAREST), "JPEG", quality=95)))
    assert np.abs(jpeg[8, 8::16] - np.array([[255] * 3, [0, 255, 255], [255, 0, 0], [0] * 3, [204] * 3])).max() < 12


@pytest.mark.parametrize("mode", ["F", "I"])
def test_levels_of_no_known_range_are_refused(mode: str, tmp_path: Path) -> None:
    content = file_of(Image.new(mode, (2, 2)), "TIFF")
    with pytest.raises(UserError, match=r"^a: cannot read a picture: it has .* levels; save it with 8 bits"):
        decode(content, "a")
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"^no: it has .* levels"):
        picture_size(tmp_path / "a.tif", "no")


@pytest.mark.parametrize("side", [8193, 10000, 30000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^a: .*it has more than 67,108,864 pixels; make it smaller"):
        decode(png_head(side, side), "a")
    (tmp_path / "a.png").write_bytes(png_head(side, side))
    with pytest.raises(UserError, match=r"^no: it has more than 67,108,864 pixels"):
        picture_size(tmp_path / "a.png", "no")


@pytest.mark.parametrize("kind", ["EPS", "PPM", "PCX", "TGA", "ICO", "DDS"])
def test_other_formats_are_refused_whatever_their_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(file_of(Image.new("RGB", (8, 8)), kind))
    with pytest.raises(UserError, match=r"^a: a.png: .*it is none of PNG, JPEG, WEBP, GIF, TIFF, BMP, or damaged; rep"):
        pictures.open_picture(tmp_path / "a.png", "a")
