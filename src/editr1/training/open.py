"""From a config to a trainer."""

from __future__ import annotations

from editr1.config.settings import Config, DataConfig
from editr1.data.holdout import choose, hold_out
from editr1.data.samples import EditDataset, JsonlDataset
from editr1.devices import pick_device, pick_dtype
from editr1.editors.open import open_config_editor
from editr1.judges.open import open_config_judge
from editr1.toy.world import ToyDataset
from editr1.training.distributed import ALONE, World
from editr1.training.trainer import Trainer


def open_trainer(config: Config, dataset: EditDataset | None = None, world: World = ALONE) -> Trainer:
    """Load all that a run needs; the trainer's `editor`, `judge` and `dataset` are there for evaluation too.

    Args:
        config: The run.
        dataset: Its items to train on, if they are open; None opens them.
        world: The processes of the run.

    Raises:
        UserError: something that the config names is not there or does not fit.
    """
    config = resolve(config)
    editor, judge = open_config_editor(config, world.size, world.meet), open_config_judge(config)
    return Trainer(config, editor, judge, open_datasets(config)[0] if dataset is None else dataset, world=world)


def resolve(config: Config) -> Config:
    """The config with the number format that `editor.dtype: auto` means on this machine; a run keeps it."""
    dtype = pick_dtype(config.editor.dtype, pick_device(config.editor.device))
    editor = config.editor.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
    return config.model_copy(update={"editor": editor})


def open_datasets(config: Config) -> tuple[EditDataset, EditDataset | None]:
    """The items to train on, and the held-out items of `evaluation`; None without it."""
    dataset, settings = open_dataset(config.data), config.evaluation
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
