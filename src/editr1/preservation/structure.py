"""What an edit of the whole picture keeps: the edges of its source, whatever their colour and contrast.

A style, a background or another light has no outside whose pixels must stay, but the things of the source shall be
where they were. Both pictures are compared at the working size of derived masks, after a shift of the whole edit is
moved back. With the strengths a and b of their edges at each place,

    structure = sum of a b / sqrt(sum of a^2 sum of b^2)

the cosine of both, so it is 1 for the same edges, also with another contrast, and 0 for none of them. Weak edges, such
as noise and soft shades, count little. What is added, such as the strokes of a painting, lowers it as what is lost
does: read its change, or one editor beside another, rather than its height.
"""

from __future__ import annotations

import math

import numpy as np
from PIL.Image import Image

from editr1.preservation.region import working_size
from editr1.preservation.registration import Floats, moved_back, pixels_of, shift_of

WIDTH = 1.0
"""Standard deviation of the blur in which edges are found, in pixels at the working size."""
REACH = 4
"""Half of the width of the filters, in pixels."""
FLAT = 1e-3
"""Mean strength below which a picture has no edges; what is there then is rounding."""


def structure(source: Image, edit: Image) -> float | None:
    """How alike the edges of an edit are to those of its source, in [0, 1]; None for a source without edges."""
    size = working_size(edit.size)
    before, after = pixels_of(source, size), pixels_of(edit, size)
    a, b = edges(before), edges(moved_back(after, shift_of(before, after)))
    if a.mean() < FLAT:
        return None
    if b.mean() < FLAT:
        return 0.0
    return float((a * b).sum()) / math.sqrt(float((a * a).sum()) * float((b * b).sum()))


def edges(picture: Floats) -> Floats:
    """The strength of the edges of a picture [H, W, 3], a root mean square over its colours, [H, W].

    That of a colour is the size of its gradient after a Gaussian blur of `WIDTH`.
    """
    places = np.arange(-REACH, REACH + 1, dtype=np.float32)
    blur: Floats = np.exp(-((places / WIDTH) ** 2) / 2)
    blur /= blur.sum()
    slope: Floats = -places / WIDTH**2 * blur
    down, across = (_along(_along(picture, first, 0), second, 1) for first, second in ((slope, blur), (blur, slope)))
    strength: Floats = np.sqrt((down**2 + across**2).mean(axis=-1))
    return strength


def _along(picture: Floats, weights: Floats, axis: int) -> Floats:
    """A picture filtered along one axis; beyond its border it is mirrored."""
    margins = [(REACH, REACH) if each == axis else (0, 0) for each in range(3)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(picture, margins, "symmetric"), len(weights), axis)
    filtered: Floats = windows @ weights
    return filtered
