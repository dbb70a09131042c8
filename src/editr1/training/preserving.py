"""How well the edits of a step keep what they must not change, for the log alone (`preservation/measure.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from PIL.Image import Image

from editr1.config.watching import KeptConfig
from editr1.data.samples import EditSample
from editr1.editors.editor import Editor
from editr1.editors.round_trip import round_trip
from editr1.preservation.features import Likeness, model_name, open_likeness
from editr1.preservation.masks import find_mask
from editr1.preservation.measure import (
    CEILING,
    FEATURES,
    NAMES,
    NO_MASK,
    OF_THE_WHOLE,
    Outside,
    measure_outside,
)
from editr1.training.group import Group
from editr1.training.step_row import Watch

OUTSIDE = "outside"
"""The part of a step's row with these measures."""


@dataclass(frozen=True)
class Measure:
    """Measures edits of one sample beside the round trip of their editor's VAE.

    Attributes:
        editor: The editor.
        likeness: Gives "features"; None leaves it out.
        model: Name of the vision model that it is of.
    """

    editor: Editor
    likeness: Likeness | None = None
    model: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of what is measured, the ceiling's too."""
        own = [name for name in NAMES if name != FEATURES or self.likeness is not None]
        return (*own, *(CEILING + name for name in own))

    def record(self, digest: str | None) -> dict[str, str]:
        """What measures depend on besides source and edit, by the digest of the mask; empty without one."""
        if digest is None:
            return {}
        return {"mask": digest, **({} if self.model is None else {FEATURES: self.model})}

    def __call__(self, sample: EditSample, images: Sequence[Image], mask: Image | str) -> list[Outside]:
        """The measures of each edit, by its mask or the reason why there is none."""
        if isinstance(mask, str) and mask not in OF_THE_WHOLE:
            return measure_outside(sample.source, images, None, missing=mask)
        given, missing = (None, mask) if isinstance(mask, str) else (mask, NO_MASK)
        trip = round_trip(self.editor.pipe, sample.source, images[0].size)
        return measure_outside(sample.source, images, given, trip, missing, self.likeness)


def watch_outside(editor: Editor, settings: KeptConfig) -> Watch:
    """The measures of each edit, and "measured": 1 for one that has a mask and an outside, 0 for another."""
    measure = open_measure(editor, settings.features)

    def watch(group: Group) -> dict[str, list[float]]:
        images = group.rollout.images
        mask = find_mask(group.sample, images, settings.masks, settings.whole_tasks)
        return in_columns(measure(group.sample, images, mask))

    return watch


def open_measure(editor: Editor, features: str | None = None) -> Measure:
    """Measures edits of this editor, beside the round trip of its VAE; by a vision model in the folder `features` too.

    Raises:
        UserError: There is no such model.
    """
    if features is None:
        return Measure(editor)
    return Measure(editor, open_likeness(features, editor.pipe.vae.device), model_name(features))


def in_columns(measured: Sequence[Outside]) -> dict[str, list[float]]:
    """The measures as a watch tells them."""
    columns: dict[str, list[float]] = {f"{OUTSIDE}/measured": [float(not each.reason) for each in measured]}
    for each in measured:
        for name, value in each.measures.items():
            columns.setdefault(f"{OUTSIDE}/{name}", []).append(value)
    return columns


def joined_watch(watches: Sequence[Watch]) -> Watch | None:
    """One watch that tells what all of them tell; None without any."""
    return partial(_all, watches) if watches else None


def _all(watches: Sequence[Watch], group: Group) -> Mapping[str, Sequence[float]]:
    return {name: values for watch in watches for name, values in watch(group).items()}
