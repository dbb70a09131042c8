"""Any picture file is what its format says, on white and with 8 bits, and any damaged one a picture or one line."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.data.pictures import decode, header_size
from tests.data.test_pictures import file_of
from tests.hostile.test_pictures import seeds, size_or_words

many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FILES = seeds()
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of a pixel by PNG's type of colour: grey, RGB, palette, grey and alpha, RGB and alpha."""
KINDS = [(kind, bits) for kind in CHANNELS for bits in (1, 2, 4, 8, 16) if bits >= 8 or kind in (0, 3)]
KINDS.remove((3, 16))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def packed(row: np.ndarray, bits: int) -> bytes:
    """A row of levels with `bits` bits each, the first in the highest bits."""
    if bits == 16:
        return row.astype(">u2").tobytes()
    places = [row[i :: 8 // bits].astype(np.int64) << (8 - bits - bits * i) for i in range(8 // bits)]
    width = max(map(len, places))
    return bytes(np.sum([np.pad(place, (0, width - len(place))) for place in places], axis=0).tolist())


def png(levels: np.ndarray, kind: int, bits: int, *chunks: bytes) -> bytes:
    """A PNG file of levels [height, width, channels], as the specification says."""
    height, width, _ = levels.shape
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row.reshape(-1), bits) for row in levels)
    parts = chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours and alpha in [0, 1] as levels of 255."""
    return 255 * (alpha * colours + 1 - alpha)


def close(content: bytes, right: np.ndarray, far: float = 1.5) -> None:
    seen = decode(content, "a")
    assert seen.mode == "RGB"
    assert np.abs(np.asarray(seen).astype(float) - np.broadcast_to(right, (*right.shape[:2], 3))).max() <= far


@many
@given(st.data())
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_every_kind_of_png_is_what_the_specification_says(kind: int, bits: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    levels = random.integers(0, 2**bits, (height, width, CHANNELS[kind]))
    most, chunks, alpha = 2.0**bits - 1, [], np.ones((height, width, 1))
    colours = levels / most
    if kind in (4, 6):
        colours, alpha = colours[..., :-1], colours[..., -1:]
    if kind == 3:
        palette = random.integers(0, 256, (2**bits, 3))
        chunks.append(chunk(b"PLTE", bytes(palette.flatten().tolist())))
        colours = palette[levels[..., 0]] / 255
    if kind in (0, 2, 3) and data.draw(st.booleans()):
        if kind == 3:
            alphas = np.full(2**bits, 255)
            some = random.integers(0, 256, data.draw(st.integers(1, 2**bits)))
            alphas[: len(some)] = some
            chunks.append(chunk(b"tRNS", bytes(some.tolist())))
            alpha = alphas[levels] / 255
        else:
            clear = levels[0, 0]
            chunks.append(chunk(b"tRNS", clear.astype(">u2").tobytes()))
            alpha = 1.0 - (levels == clear).all(-1, keepdims=True)
    close(png(levels, kind, bits, *chunks), on_white(colours, alpha), 1.5 if bits < 16 else 2.5)


def expected(mode: str, levels: np.ndarray) -> np.ndarray:
    """What a person sees of levels [height, width, channels] in [0, 255]."""
    colours = levels / 255
    if mode in ("LA", "RGBA"):
        return on_white(colours[..., :-1], colours[..., -1:])
    return 255 * (1 - colours[..., :3]) * (1 - colours[..., 3:]) if mode == "CMYK" else 255 * colours


@many
@given(seed=st.integers(0, 2**32), height=st.integers(1, 9), width=st.integers(1, 9))
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", mode) for mode in ("L", "LA", "RGB", "RGBA")),
        *(("TIFF", mode) for mode in ("L", "LA", "RGB", "RGBA", "CMYK")),
        *(("BMP", mode) for mode in ("L", "RGB")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_every_mode_is_what_a_person_sees(kind: str, mode: str, seed: int, height: int, width: int) -> None:
    channels = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    image = Image.fromarray(levels if channels > 1 else levels[..., 0], mode)
    more: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    close(file_of(image, kind, **more), expected(mode, levels))


@many
@given(bits=st.integers(1, 9), seed=st.integers(0, 2**32))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_black_and_white_and_palettes_keep_their_colours(kind: str, bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    ink = random.integers(0, 2, (3, bits), np.uint8)
    close(file_of(Image.fromarray(ink * 255).convert("1"), kind), 255.0 * ink[..., None])
    palette, places = random.integers(0, 256, (256, 3), np.uint8), random.integers(0, 256, (3, bits), np.uint8)
    image = Image.fromarray(places, "P")
    image.putpalette(palette.tobytes())
    close(file_of(image, kind), palette[places].astype(float))


@pytest.mark.filterwarnings("ignore")
@settings(many, max_examples=500)
@given(st.data())
def test_any_damage_is_a_picture_or_one_line(data: st.DataObject) -> None:
    content = bytearray(FILES[data.draw(st.sampled_from(sorted(FILES)))])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)) | st.integers(0, min(200, len(content))))
        part = data.draw(
            st.binary(max_size=8)
            | st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", bytes(content[:99]), b"Exif\0\0MM\0*\xff"])
            | st.tuples(
                st.sampled_from([b"eXIf", b"tRNS", b"PLTE", b"acTL", b"iCCP", b"zTXt", b"IHDR"]), st.binary()
            ).map(lambda pair: chunk(*pair))
        )
        content[place : place + data.draw(st.sampled_from([0, len(part), 8, 10**6]))] = part
    damaged = bytes(content)
    size_or_words(lambda picture: decode(picture, "a").size, damaged)
    size_or_words(lambda picture: header_size(picture, "a"), damaged)
