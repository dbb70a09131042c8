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
from scipy.ndimage import gaussian_gradient_magnitude

from editr1.preservation.region import working_size
from editr1.preservation.registration import Floats, moved_back, pixels_of, shift_of

WIDTH = 1.0
"""Standard deviation of the blur in which edges are found, in pixels at the working size."""
FLAT = 1e-3
"""Mean strength of the edges below which a source has none that could be kept."""


def structure(source: Image, edit: Image) -> float | None:
    """How alike the edges of an edit are to those of its source, in [0, 1]; None for a source without edges."""
    size = working_size(edit.size)
    before, after = pixels_of(source, size), pixels_of(edit, size)
    a, b = edges(before), edges(moved_back(after, shift_of(before, after)))
    if a.mean() < FLAT:
        return None
    length = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / length if length else 0.0


def edges(picture: Floats) -> Floats:
    """The strength of the edges of a picture [H, W, 3], a root mean square over its colours, [H, W]."""
    colours = [gaussian_gradient_magnitude(picture[..., colour], WIDTH) for colour in range(3)]
    strength: Floats = np.sqrt(np.square(colours).mean(axis=0))
    return strength
