"""From a config to the items of a run."""

from __future__ import annotations

import numpy as np

from editr1.config.data import DataConfig
from editr1.config.own_code import load_own
from editr1.config.settings import Config
from editr1.data.edited import PairLine, PreferenceLine
from editr1.data.forms import open_stored
from editr1.data.holdout import choose, hold_out, read_items
from editr1.data.long import LongDataset
from editr1.data.samples import EditDataset, ItemLine, StoredDataset
from editr1.errors import UserError
from editr1.toy.world import ToyDataset
from editr1.training.groups import GroupDataset

KINDS: dict[str, type[ItemLine]] = {"jsonl": ItemLine, "preferences": PreferenceLine, "pairs": PairLine}
"""The form of a line, by the kind of data."""
CHECKED = 10_000
"""Lines of a data.jsonl that a run checks before its first step at most."""


def open_datasets(config: Config, data: EditDataset | None = None) -> tuple[EditDataset, EditDataset | None]:
    """The items to train on, and the held-out items of `evaluation`; None without it.

    `data` are the items that `config.data` names, if they are open: a long file takes seconds to read.
    """
    dataset, settings = open_dataset(config.data) if data is None else data, config.evaluation
    if settings is None:
        return dataset, None
    if settings.data is not None:
        return dataset, choose(open_stored(settings.data, config.data.root), settings.items)
    assert settings.split is not None, "evaluation has data or split"
    sources = dataset.sources if isinstance(dataset, StoredDataset) else range(len(dataset))
    training, heldout = hold_out(dataset, sources, settings.split)
    chosen = choose(heldout, settings.items)
    if isinstance(dataset, LongDataset):  # few of whose lines have been checked
        indices = np.asarray(heldout.indices)
        read_items(dataset, indices if chosen is heldout else indices[chosen.indices])
    return training, chosen


def open_dataset(settings: DataConfig) -> EditDataset:
    """The dataset that a config names; of a long data.jsonl a sample is checked."""
    if settings.kind in KINDS and settings.path is not None:
        return open_stored(settings.path, settings.root, most=CHECKED, kind=KINDS[settings.kind])
    if settings.kind == "function":
        return _own_dataset(str(settings.path))
    if settings.kind == "groups" and settings.path is not None:
        return GroupDataset(settings.path)
    return ToyDataset(settings.split, settings.size, settings.seed, settings.level)


def _own_dataset(name: str) -> EditDataset:
    """What a function or a class of the user's own returns, or a list of the user's own."""
    own = load_own(name, "data.path")
    own = own() if callable(own) else own
    if not isinstance(own, EditDataset):
        raise UserError(f"data.path {name!r} gives {type(own).__name__}, not items; return a list of EditSample")
    if len(own) == 0:
        raise UserError(f"data.path {name!r} gives no item")
    return own
