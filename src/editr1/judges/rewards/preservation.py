"""How much of the picture outside the edit is kept, pixel by pixel, for one edit that nothing else is known of.

The edited region is estimated from the edit alone: the difference to the source is blurred and thresholded, and the
region grown by a margin. Outside of it, small differences remain: noise, a shift of colour or brightness, loss of
detail. An object that was spoiled counts as edited, so training needs the masks of `outside.py`. An edit that changes
nothing gets 1, so this reward must be mixed with one that wants the edit done. A change of the whole picture (style,
tone) has no outside, so it gets no score.

Letters: H W height and width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from editr1.judges.base import JudgeRequest, Score, SingleJudge

CHANGED = 0.1
"""Blurred absolute difference (mean over channels, in [0, 1]) above which a pixel belongs to the edit."""
BLUR = 1 / 64
"""Radius of the blur and margin around the edit, as a share of the longer side."""
OUTSIDE_MIN = 0.1
"""Smallest share of the picture outside the edit."""
GONE = 0.05
"""Mean absolute difference outside the edit at which nothing counts as kept."""


class PreservationReward(SingleJudge):
    """1 - min(1, d / GONE), d the mean absolute difference of edit and source outside the edited region."""

    def score_one(self, request: JudgeRequest) -> Score:
        edit = request.edit.convert("RGB")
        source = request.sample.source.convert("RGB").resize(edit.size, Image.Resampling.LANCZOS)
        difference = np.abs(_pixels(edit) - _pixels(source)).mean(axis=-1)  # H W
        outside = ~edited_region(difference)
        if outside.mean() < OUTSIDE_MIN:
            return Score(None, "the whole picture is edited: there is no outside to be kept")
        return Score(1 - min(1.0, float(difference[outside].mean()) / GONE))


def edited_region(difference: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the edit with a margin; difference and result [H, W]."""
    radius = max(1, round(max(difference.shape) * BLUR))
    picture = Image.fromarray((difference * 255).round().astype(np.uint8))
    blurred = np.asarray(picture.filter(ImageFilter.BoxBlur(radius)))
    region = Image.fromarray((blurred > 255 * CHANGED).astype(np.uint8) * 255)
    return np.asarray(region.filter(ImageFilter.MaxFilter(2 * radius + 1))) > 0


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, np.float32) / np.float32(255)
