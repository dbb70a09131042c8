"""From a config to the items of a run."""

from __future__ import annotations

from editr1.config.settings import Config, DataConfig
from editr1.data.holdout import choose, hold_out
from editr1.data.samples import EditDataset, JsonlDataset
from editr1.toy.world import ToyDataset


def open_datasets(config: Config, data: EditDataset | None = None) -> tuple[EditDataset, EditDataset | None]:
    """The items to train on, and the held-out items of `evaluation`; None without it.

    `data` are the items that `config.data` names, if they are open: a long file takes seconds to read.
    """
    dataset, settings = open_dataset(config.data) if data is None else data, config.evaluation
    if settings is None:
        return dataset, None
    if settings.data is not None:
        return dataset, choose(JsonlDataset(settings.data, config.data.root), settings.items)
    assert settings.split is not None, "evaluation has data or split"
    sources = dataset.sources if isinstance(dataset, JsonlDataset) else range(len(dataset))
    training, heldout = hold_out(dataset, sources, settings.split)
    return training, choose(heldout, settings.items)


def open_dataset(settings: DataConfig) -> EditDataset:
    """The dataset that a config names."""
    if settings.kind == "jsonl" and settings.path is not None:
        return JsonlDataset(settings.path, settings.root)
    return ToyDataset(settings.split, settings.size, settings.seed, settings.level)
