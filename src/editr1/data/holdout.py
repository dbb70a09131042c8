"""The part of a dataset that is held out from training: fixed by the dataset alone, whatever the seed of a run."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from editr1.data.samples import EditDataset, EditSample, Sources, StoredDataset
from editr1.data.seeds import derive_seed
from editr1.errors import UserError, printable

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some items of a dataset, as a dataset."""

    dataset: EditDataset
    indices: Sequence[int] | Numbers

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> EditSample:
        return self.dataset[int(self.indices[index])]

    def edits(self, index: int) -> list[Image]:
        """The stored edits of an item, if the dataset has such."""
        assert isinstance(self.dataset, StoredDataset), "items of other datasets have none"
        return self.dataset.edits(int(self.indices[index]))


def hold_out(dataset: EditDataset, sources: Sources, amount: float) -> tuple[Part, Part]:
    """The items to train on, and those held out; all items of one source image are on the same side.

    Args:
        dataset: The items.
        sources: The source image of each item; equal ones are the same image.
        amount: A share of the items below 1, or a number of items. Whole images are held out until it is reached.

    Raises:
        UserError: Nothing would be left to train on.
    """
    wanted = math.ceil(amount * len(dataset)) if amount < 1 else int(amount)
    pictures = _numbers(sources)
    order, sizes = _order(int(pictures.max()) + 1), np.bincount(pictures)
    before = np.cumsum(sizes[order]) - sizes[order]  # items that are held out before each picture
    is_held = np.isin(pictures, order[before < wanted])
    held = np.flatnonzero(is_held)
    if not 0 < len(held) < len(dataset):
        raise UserError(
            f"evaluation.split={amount:g} holds out {len(held)} of {len(dataset)} items with {len(sizes)} source "
            "images (items of one image stay together), which leaves none to train on; take less, or name a folder "
            "of held-out items in evaluation.data"
        )
    return Part(dataset, np.flatnonzero(~is_held)), Part(dataset, held)


def _numbers(sources: Sources) -> Numbers:
    """A number for each source, the same for equal ones, in the order in which they first come."""
    if isinstance(sources, np.ndarray):
        _, first, numbers = np.unique(sources, return_index=True, return_inverse=True)
        return np.asarray(np.argsort(np.argsort(first))[numbers])
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(source, len(known)) for source in sources])


@overload
def choose(dataset: Part, items: int | None) -> Part: ...


@overload
def choose(dataset: EditDataset, items: int | None) -> EditDataset: ...


def choose(dataset: EditDataset, items: int | None) -> EditDataset:
    """A fixed choice of `items` items, in their order; the whole dataset if it has no more, or if `items` is None."""
    if items is None or items >= len(dataset):
        return dataset
    return Part(dataset, np.sort(_order(len(dataset))[:items]))


def read_items(dataset: StoredDataset, indices: Numbers) -> None:
    """Read the lines of some items; a UserError if one is wrong, or two have one key."""
    keys = set[str]()
    for _, key, _ in (dataset.items[int(index)] for index in indices):
        if key in keys:
            raise UserError(f"{dataset.file}: two held-out items have the key {printable(key)!r}; keys must be unique")
        keys.add(key)


def _order(size: int) -> Numbers:
    """A permutation that follows from the size alone."""
    return np.random.default_rng(derive_seed(0, "heldout")).permutation(size)
