"""The mask of an item's edits: the given one, or where they agree to differ from their source (`region.py`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from PIL.Image import Image

from editr1.config.rewards import MaskSource
from editr1.data.samples import EditSample
from editr1.preservation.measure import NO_MASK, WHOLE_TASK
from editr1.preservation.region import derive_mask


def find_mask(
    sample: EditSample, edits: Sequence[Image], masks: MaskSource, whole_tasks: Collection[str]
) -> Image | str:
    """The mask by which the edits of a whole group are measured, or why there is none.

    Args:
        sample: Their item.
        edits: All of them, if it may be derived.
        masks: Whose mask: the item's ("data"), a derived one ("group"), or this if the item has none ("either").
        whole_tasks: Task types for which none is derived.
    """
    if sample.mask is not None and masks != "group":
        return sample.mask
    if masks == "data":
        return NO_MASK
    return WHOLE_TASK if sample.task in whole_tasks else derive_mask(sample.source, edits)
