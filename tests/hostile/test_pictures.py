"""Damaged and odd pictures: the right error, or a picture; nothing else, and no memory."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editr1.data.pictures import PIXELS_MAX, decode, picture_size
from editr1.errors import UserError
from tests.data.test_pictures import file_of, png_head
from tests.hostile.harness import Case, Judged

FILES = 100
"""Damaged files of each kind of picture and of damage."""


def picture(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "a camera"
    return tags


def seeds() -> dict[str, bytes]:
    """Small files of every format, with the parts that decoders stumble over."""
    frames: dict[str, Any] = {"save_all": True, "append_images": [picture("RGB").rotate(90)]}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGBA", {"exif": exif()}),
        ("PNG", "P", {"transparency": 1}),
        ("PNG", "I;16", {}),
        ("PNG", "RGB", frames),
        ("JPEG", "RGB", {"exif": exif()}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("MPO", "RGB", frames),
        ("WEBP", "RGBA", {"exif": exif()}),
        ("WEBP", "RGB", frames),
        ("GIF", "P", frames),
        ("TIFF", "RGB", {"compression": "tiff_lzw", "exif": exif()}),
        ("TIFF", "CMYK", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "I;16", {}),
        ("BMP", "P", {}),
        ("BMP", "RGB", {}),
    ]
    return {
        f"{kind} {mode} {' '.join(more)}".strip(): file_of(picture(mode), kind, **more) for kind, mode, more in kinds
    }


def flip_bits(content: bytearray, random: random.Random) -> None:
    for _ in range(random.randint(1, 8)):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def overwrite_head(content: bytearray, random: random.Random) -> None:
    """Sizes, counts and offsets are near the beginning."""
    place = random.randrange(min(len(content), 200))
    content[place : place + 4] = random.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\x7f"])


def cut(content: bytearray, random: random.Random) -> None:
    del content[random.randrange(1, len(content)) :]


def splice(content: bytearray, random: random.Random) -> None:
    """Repeat, drop or move a part."""
    start, end = sorted(random.sample(range(len(content)), 2))
    part = content[start:end]
    if random.random() < 0.5:
        del content[start:end]
    place = random.randrange(len(content) + 1)
    content[place:place] = part


DAMAGES = (flip_bits, overwrite_head, cut, splice)


def read_damaged(content: bytes, damage: Callable[[bytearray, random.Random], None], folder: Path) -> None:
    """Read damaged copies as an item's picture is read and as a check reads it."""
    for number in range(FILES):
        damaged = bytearray(content)
        damage(damaged, random.Random(number))
        (folder / "a.png").write_bytes(damaged)
        size_or_words(lambda content: decode(content, "a").size, bytes(damaged))
        size_or_words(lambda file: picture_size(file, "a"), folder / "a.png")


def size_or_words(read: Callable[[Any], tuple[int, int]], picture: bytes | Path) -> None:
    try:
        width, height = read(picture)
    except UserError as error:
        words = str(error)
        assert words.startswith("a: ") and words.isprintable() and len(words) < 500, words
    else:
        assert width * height <= PIXELS_MAX


def refuse(content: bytes, folder: Path) -> None:
    decode(content, "a")


def webp_head(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sizes
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flat(mode: str, side: int, kind: str) -> bytes:
    """A small file of a large picture."""
    Image.MAX_IMAGE_PIXELS = None
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind)
    return file.getvalue()


CASES = tuple(
    Case(f"{name}: {damage.__name__}", partial(read_damaged, content, damage), "clean")
    for name, content in seeds().items()
    for damage in DAMAGES
)
REFUSED = {
    "PNG of 10^9 pixels": png_head(40000, 25000),
    "PNG of 2^62 pixels": png_head(2**31 - 1, 2**31 - 1),
    "PNG without pixels": png_head(0, 0),
    "one-bit PNG of 13000x13000": flat("1", 13000, "PNG"),
    "GIF of 65535x65535": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
    "WebP of 2^28 pixels": webp_head(2**14, 2**14),
    "BMP of 10^9 pixels": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 40000, 25000, 1, 24, 0, 0, 0, 0, 0, 0),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(sh) run\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script href="file:///etc/passwd"/></svg>',
    "nothing": b"",
    "zeros": bytes(1000),
    "text": b"no picture",
}
CASES += tuple(Case(name, partial(refuse, content), memory=300 * 2**20) for name, content in REFUSED.items())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_picture_breaks_it(case: Case, judged: Judged) -> None:
    judged(case)
