"""The part of a dataset that is held out from training: fixed by the dataset alone, whatever the seed of a run."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from editr1.data.samples import EditDataset, EditSample
from editr1.data.seeds import derive_seed
from editr1.errors import UserError


@dataclass(frozen=True)
class Part:
    """Some items of a dataset, as a dataset."""

    dataset: EditDataset
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> EditSample:
        return self.dataset[self.indices[index]]


def hold_out(dataset: EditDataset, sources: Sequence[Hashable], amount: float) -> tuple[Part, Part]:
    """The items to train on, and those held out; all items of one source image are on the same side.

    Args:
        dataset: The items.
        sources: The source image of each item; equal ones are the same image.
        amount: A share of the items below 1, or a number of items. Whole images are held out until it is reached.

    Raises:
        UserError: Nothing would be left to train on.
    """
    wanted = math.ceil(amount * len(dataset)) if amount < 1 else int(amount)
    items: dict[Hashable, list[int]] = {}
    for index, source in enumerate(sources):
        items.setdefault(source, []).append(index)
    groups, held = list(items.values()), list[int]()
    for group in _order(len(groups)):
        if len(held) < wanted:
            held += groups[group]
    if not 0 < len(held) < len(dataset):
        raise UserError(
            f"evaluation.split={amount:g} holds out {len(held)} of {len(dataset)} items with {len(groups)} source "
            "images (items of one image stay together), which leaves none to train on; take less, or name a folder "
            "of held-out items in evaluation.data"
        )
    rest = sorted({*range(len(dataset))} - {*held})
    return Part(dataset, rest), Part(dataset, sorted(held))


def choose(dataset: EditDataset, items: int | None) -> EditDataset:
    """A fixed choice of `items` items, in their order; the whole dataset if it has no more, or if `items` is None."""
    if items is None or items >= len(dataset):
        return dataset
    return Part(dataset, sorted(_order(len(dataset))[:items]))


def _order(size: int) -> list[int]:
    """A permutation that follows from the size alone."""
    return [int(i) for i in np.random.default_rng(derive_seed(0, "heldout")).permutation(size)]
