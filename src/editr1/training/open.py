"""From a config to a trainer."""

from __future__ import annotations

from dataclasses import replace

from editr1.config.settings import Config
from editr1.data.samples import EditDataset
from editr1.editors.open import open_config_editor
from editr1.errors import UserError
from editr1.judges.base import Unasked
from editr1.judges.open import open_config_judge, open_watch
from editr1.training.checkpoint import resolve
from editr1.training.datasets import open_datasets
from editr1.training.distributed import ALONE, World
from editr1.training.preserving import joined_watch, watch_outside
from editr1.training.trainer import Trainer
from editr1.training.watching import watch_by


def open_trainer(config: Config, dataset: EditDataset | None = None, world: World = ALONE) -> Trainer:
    """Load all that a run needs; the trainer's `editor`, `judge` and `dataset` are there for evaluation too.

    Args:
        config: The run.
        dataset: Its items to train on, if they are open; None opens them.
        world: The processes of the run.

    Raises:
        UserError: something that the config names is not there or does not fit.
    """
    if world.size > 1 and ":" in config.editor.device:
        raise UserError(
            f"editor.device={config.editor.device!r} is one GPU, for {world.size} processes; use auto: each has one"
        )
    config, world = resolve(config), replace(world, context=config.parallel.context)
    editor = open_config_editor(config, world.size, world.meet)
    judge = open_config_judge(config) if config.judge or config.rewards else Unasked()
    watches = [] if config.watch is None else [watch_by(open_watch(config), config.watch.every)]
    watches += [] if config.preservation is None else [watch_outside(editor, config.preservation)]
    dataset = open_datasets(config)[0] if dataset is None else dataset
    return Trainer(config, editor, judge, dataset, watch=joined_watch(watches), world=world)
