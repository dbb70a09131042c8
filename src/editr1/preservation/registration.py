"""An edit that is shifted as a whole by a pixel or two: by how much, and back.

Letters: H W height and width.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling

Floats = NDArray[np.float32]
Places = NDArray[np.bool_]
SHIFT = 2
"""Largest shift, in pixels each way."""
BETTER = 0.8
"""A shift is real if it leaves less than this share of the difference."""
PLAIN = 0.1
"""Difference of grey levels in [0, 1] above which it does not matter how large it is: an edit may be anything."""


def pixels_of(image: Image, size: tuple[int, int]) -> Floats:
    """The colours of a picture at a size (width, height), [H, W, 3] in [0, 1]."""
    picture = image.convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Resampling.LANCZOS)
    return np.asarray(picture, np.float32) / np.float32(255)


def shift_of(before: Floats, after: Floats, where: Places | None = None) -> tuple[int, int]:
    """How far down and to the right an edit lies from its source, (y, x) in pixels; (0, 0) if that is not clear.

    Args:
        before: The source, [H, W, 3].
        after: The edit.
        where: Places that are compared, [H, W]; None for all.
    """
    inner = (slice(SHIFT, -SHIFT),) * 2  # a frame that all shifts share
    grey, whole = before.mean(axis=-1)[inner], after.mean(axis=-1)
    compared = np.ones(grey.shape, bool) if where is None else where[inner]
    if not compared.any():
        return 0, 0
    whole -= np.median((whole[inner] - grey)[compared])  # another brightness, as of a VAE, is no shift and hides none
    height, width = grey.shape
    errors = {
        (y, x): _error(whole[SHIFT + y : SHIFT + y + height, SHIFT + x : SHIFT + x + width] - grey, compared)
        for y, x in product(range(-SHIFT, SHIFT + 1), repeat=2)
    }
    best = min(errors, key=lambda shift: (errors[shift], abs(shift[0]) + abs(shift[1])))
    return best if errors[best] < BETTER * errors[0, 0] else (0, 0)


def moved_back(after: Floats, shift: tuple[int, int]) -> Floats:
    """An edit [H, W, 3] that was shifted, at the place of its source; its own edge is repeated where nothing is."""
    if shift == (0, 0):
        return after
    (y, x), (height, width) = shift, after.shape[:2]
    padded = np.pad(after, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    return padded[SHIFT + y : SHIFT + y + height, SHIFT + x : SHIFT + x + width]


def known_after(shift: tuple[int, int], size: tuple[int, int]) -> Places:
    """The places [H, W] of a picture of this height and width that an edit still shows after it was moved back."""
    places, (y, x) = np.ones(size, bool), shift
    places[: max(-y, 0)] = places[size[0] - max(y, 0) :] = False
    places[:, : max(-x, 0)] = places[:, size[1] - max(x, 0) :] = False
    return places


def _error(difference: Floats, compared: Places) -> float:
    return float(np.minimum(np.abs(difference), PLAIN)[compared].mean())
