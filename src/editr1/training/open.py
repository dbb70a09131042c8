"""From a config to a trainer."""

from __future__ import annotations

from editr1.config.settings import Config, DataConfig
from editr1.data.samples import EditDataset, JsonlDataset
from editr1.editors.open import open_config_editor
from editr1.judges.open import open_config_judge
from editr1.toy.world import ToyDataset
from editr1.training.trainer import Trainer


def open_trainer(config: Config) -> Trainer:
    """Load all that a run needs; the trainer's `editor`, `judge` and `dataset` are there for evaluation too.

    Raises:
        UserError: something that the config names is not there or does not fit.
    """
    return Trainer(config, open_config_editor(config), open_config_judge(config), open_dataset(config.data))


def open_dataset(settings: DataConfig) -> EditDataset:
    """The dataset that a config names."""
    if settings.kind == "jsonl" and settings.path is not None:
        return JsonlDataset(settings.path)
    return ToyDataset(settings.split, settings.size, settings.seed, settings.level)
