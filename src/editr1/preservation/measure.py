"""How well an edit keeps what is outside of its mask: PSNR and SSIM beside the source, by torchmetrics.

With a vision model of the user's, the likeness of features too (`features.py`).

The source is brought to the size of the edit. An edit that is shifted as a whole, by up to `SHIFT` pixels, is moved
back first. PSNR is over the outside's pixels alone. For SSIM the inside of the edit is replaced by the source's, so
that no window sees the edit, and the mean of the map is over the outside. The source's round trip through the VAE is
measured alike, as the ceiling: what is lost without any edit. An edit rarely keeps more.

Without a mask, or if that leaves less than `OUTSIDE_MIN` of the picture, none of it is measured, and the reason is
told. An edit of the whole picture, such as a style, has no outside. What it keeps is measured as its "structure"
(`structure.py`) and under that name alone, as the number means something else than the others.

Letters: H W height and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL.Image import Image, Resampling

from editr1.preservation.features import Likeness
from editr1.preservation.region import EVERYTHING
from editr1.preservation.registration import Floats, Places, known_after, moved_back, pixels_of, shift_of
from editr1.preservation.structure import structure

Measures = dict[str, float]
"""By name: "psnr" in dB, at most `PSNR_MAX`; the others at most 1. More is kept where they are higher.

"psnr", "ssim" and "features" are of the outside, "structure" is of an edit of the whole picture."""
FEATURES = "features"
NAMES = ("psnr", "ssim", FEATURES, "structure")
CEILING = "ceiling_"
"""What begins the names of the ceiling's measures."""
PSNR_MAX = 60.0
"""Of equal pictures, instead of infinity: more than any 8-bit picture has that differs by one level in all pixels."""
OUTSIDE_MIN = 0.02
"""Share of the picture that must be outside."""
SIDE_MIN = 11
"""Shorter side of the smallest picture: the window of SSIM."""

NO_MASK = "the item has no mask"
WHOLE_TASK = "its task type is of the whole picture"
NO_OUTSIDE = "the mask leaves nothing outside"
TOO_SMALL = f"a picture of less than {SIDE_MIN} pixels a side"
OF_THE_WHOLE = frozenset({WHOLE_TASK, NO_OUTSIDE, EVERYTHING})
"""The reasons of an edit of the whole picture."""


@dataclass(frozen=True)
class Outside:
    """What was measured of one edit.

    Attributes:
        measures: By name, the ceiling's too if there is a round trip; empty if nothing was measured.
        reason: Why nothing was of the outside; None if it was.
    """

    measures: Measures = field(default_factory=dict)
    reason: str | None = None


def measure_outside(
    source: Image,
    edits: Sequence[Image],
    mask: Image | None,
    round_trip: Image | None = None,
    missing: str = NO_MASK,
    likeness: Likeness | None = None,
) -> list[Outside]:
    """The measures of each edit of a source.

    Args:
        source: RGB.
        edits: RGB.
        mask: What they may change, in mode "L"; None if it is not known.
        round_trip: The source after the VAE's round trip, at the size of the edits; None for no ceiling.
        missing: Why there is no mask.
        likeness: Gives "features"; None leaves it out.
    """
    measured = [outside_of(source, edit, mask, likeness, missing) for edit in edits]
    if round_trip is None:
        return measured
    ceiling = outside_of(source, round_trip, mask, likeness, missing).measures
    return [replace(each, measures=each.measures | _beside(each.measures, ceiling)) for each in measured]


def _beside(measures: Measures, ceiling: Measures) -> Measures:
    return {CEILING + name: ceiling[name] for name in measures if name in ceiling}


def outside_of(
    source: Image, edit: Image, mask: Image | None, likeness: Likeness | None = None, missing: str = NO_MASK
) -> Outside:
    """The measures of one edit, or why there are none of the outside; arguments as of `measure_outside`."""
    view = missing if mask is None else view_of(source, edit, mask)
    if isinstance(view, str):
        kept = structure(source, edit) if view in OF_THE_WHOLE else None
        return Outside({} if kept is None else {"structure": kept}, view)
    features = {} if likeness is None else {FEATURES: likeness(view.before, view.merged)}
    return Outside({"psnr": psnr(view), "ssim": ssim(view), **features})


@dataclass(frozen=True)
class View:
    """A source and its edit, in place, at the edit's size, [H, W, 3] in [0, 1]; and what must stay, [H, W]."""

    before: Floats
    after: Floats
    outside: Places

    @property
    def merged(self) -> Floats:
        """The edit, whose inside is the source's."""
        return np.where(self.outside[..., None], self.after, self.before)


def view_of(source: Image, edit: Image, mask: Image) -> View | str:
    """What is measured of an edit, or why nothing is; arguments as of `measure_outside`."""
    if min(edit.size) < SIDE_MIN:
        return TOO_SMALL
    outside = ~mask_of(mask, edit.size)
    if outside.mean() < OUTSIDE_MIN:
        return NO_OUTSIDE
    before, after = pixels_of(source, edit.size), pixels_of(edit, edit.size)
    shift = shift_of(before, after, outside)
    outside = outside & known_after(shift, outside.shape)
    return View(before, moved_back(after, shift), outside) if outside.any() else NO_OUTSIDE


def psnr(view: View) -> float:
    """PSNR outside, in dB, at most `PSNR_MAX`."""
    from torchmetrics.functional.image import peak_signal_noise_ratio  # seconds, which a command need not wait for

    one, other = (torch.from_numpy(picture[view.outside]) for picture in (view.after, view.before))
    return min(float(peak_signal_noise_ratio(one, other, data_range=1.0)), PSNR_MAX)


def ssim(view: View) -> float:
    """The mean of the SSIM map outside."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = (torch.from_numpy(picture).permute(2, 0, 1)[None] for picture in (view.merged, view.before))  # 1 3 H W
    every = structural_similarity_index_measure(one, other, data_range=1.0, return_full_image=True)[1]  # 1 3 H W
    return float(every[0, :, torch.from_numpy(view.outside)].mean())


def mask_of(mask: Image, size: tuple[int, int]) -> Places:
    """A mask at a size (width, height), [H, W]: true wherever white has a part, so that no edge counts as outside."""
    grown = max(size[0], mask.width), max(size[1], mask.height)
    if mask.size != grown:
        mask = mask.resize(grown, Resampling.BILINEAR)
    places = np.asarray(mask.convert("L")) > 0
    return _fewer(_fewer(places, size[1]).T, size[0]).T


def _fewer(rows: Places, count: int) -> Places:
    """So many rows of the same height, no more than there are: true wherever a true one has a part."""
    edges = np.arange(count + 1) * len(rows)
    before = np.pad(np.cumsum(rows, axis=0), ((1, 0), (0, 0)))  # how many are true above each row
    fewer: Places = before[-(-edges[1:] // count)] > before[edges[:-1] // count]
    return fewer


def names_of(measured: Iterable[Measures]) -> tuple[str, ...]:
    """The names of what was measured at all, without the ceiling's."""
    found = {name for measures in measured for name in measures}
    return tuple(name for name in NAMES if name in found)
