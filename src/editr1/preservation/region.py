"""Where the edits of one item agree to differ from its source: a mask, if nobody gave one.

Each edit is compared with the source at a working size of at most `SIDE` pixels. What is no edit is taken out: a shift
of the whole picture (`registration.py`), a change of its colour or brightness up to `TINT` (the median is subtracted; a
VAE's round trip makes one), and noise (a mean over 3x3 places, and `CHANGED`). What remains votes: a place belongs to
the mask if at least `AGREE` of the edits that change anything differ there, so that the damage of single edits is
outside. Holes narrower than `HOLE` places are closed, and specks and lines as narrow, such as edges that do not quite
meet, are dropped.

There is no mask if too few edits change anything, if they do not agree, or if they change more than `WHOLE` of the
picture: a background has no outside that could be told from it. A style that leaves a plain background as it is looks
like an edit of the objects; only the item's task type tells it (`preservation.whole_tasks`).

Letters: G edits, H W height and width at the working size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Images
from PIL import ImageFilter
from PIL.Image import Image, Resampling

from editr1.preservation.registration import Floats, Places, moved_back, pixels_of, shift_of

SIDE = 128
"""Longer side at which pictures are compared."""
TINT = 0.03
"""Change of a channel's median, in [0, 1], that counts as one of the whole picture and not of its content."""
CHANGED = 0.1
"""Difference (root mean square over the channels, in [0, 1]) from which on a place counts as changed."""
SOME = 0.004
"""Share of the places from which on an edit counts as one that changes anything."""
EDITS_MIN = 3
"""Edits that must change something: of fewer, damage cannot be told from what is asked."""
AGREE = 1 / 3
"""Share of them that must differ at a place of the mask."""
SMALLEST = 0.02
"""Share of the picture that a mask has at least."""
WHOLE = 0.5
"""Share of the picture above which the whole of it counts as edited."""
HOLE = 3
"""Width from which on holes and specks stay, in places; odd."""

FEW = "fewer than 3 edits of the group change anything"
DISAGREE = "the edits of the group change no place in common"
EVERYTHING = "the edits of the group change the whole picture"


def derive_mask(source: Image, edits: Sequence[Image]) -> Image | str:
    """The mask of G edits of one size, in mode "L" at the size of the source; or why there is none."""
    size = working_size(edits[0].size)
    before = pixels_of(source, size)
    changed = np.stack([differs(before, pixels_of(edit, size)) for edit in edits])  # G H W
    voters = changed[changed.mean(axis=(1, 2)) >= SOME]
    if len(voters) < EDITS_MIN:
        return FEW
    if np.median(voters.mean(axis=(1, 2))) > WHOLE:
        return EVERYTHING
    region = _cleaned(voters.mean(axis=0) >= AGREE)
    if region.mean() < SMALLEST:
        return DISAGREE
    if region.mean() > WHOLE:
        return EVERYTHING
    mask = Images.fromarray(region.astype(np.uint8) * 255)
    return mask if mask.size == source.size else _grown(mask, source.size)


def differs(before: Floats, after: Floats) -> Places:
    """Where a picture [H, W, 3] in [0, 1] shows something else than one of the same size, [H, W]."""
    after = moved_back(after, shift_of(before, after))
    tint = np.median(after - before, axis=(0, 1))
    after = after - np.clip(tint, -TINT, TINT)
    return np.sqrt(_mean_of_neighbours(np.square(after - before).mean(axis=-1))) > CHANGED


def _mean_of_neighbours(values: Floats) -> Floats:
    """The mean over 3x3 places around each, [H, W]."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    total: Floats = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    return total


def _cleaned(region: Places) -> Places:
    """The region without narrow holes, and then without small specks."""
    picture = Images.fromarray(np.pad(region, HOLE).astype(np.uint8) * 255)
    for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter, ImageFilter.MinFilter, ImageFilter.MaxFilter):
        picture = picture.filter(kind(HOLE))
    return np.asarray(picture)[HOLE:-HOLE, HOLE:-HOLE] > 0


def working_size(size: tuple[int, int]) -> tuple[int, int]:
    """The width and height at which pictures of a size are compared."""
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _grown(mask: Image, size: tuple[int, int]) -> Image:
    """A mask in another size: white wherever white has a part."""
    return mask.resize(size, Resampling.BILINEAR).point(lambda grey: 255 if grey else 0)
