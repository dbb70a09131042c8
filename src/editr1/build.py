"""From a config to the objects it names: editor, judge, dataset, trainer."""

from __future__ import annotations

from pathlib import Path

import torch

from editr1.config import Config, DataConfig
from editr1.data import EditDataset, JsonlDataset
from editr1.editors.editor import Editor
from editr1.editors.memory import apply_memory
from editr1.errors import UserError
from editr1.judges.base import Judge
from editr1.judges.transformers_backend import TransformersJudge
from editr1.trainer import Trainer


def build_trainer(config: Config) -> Trainer:
    """Load all that a run needs; the trainer's `editor`, `judge` and `dataset` are there for evaluation too.

    Raises:
        UserError: something that the config names is not there or does not fit.
    """
    return Trainer(config, load_editor(config), load_judge(config), load_dataset(config.data))


def load_editor(config: Config) -> Editor:
    """The editor that a config names, fitted on the machine as its `memory` says."""
    settings, memory = config.editor, config.memory
    editor = Editor.load(
        locate(settings.path),
        dtype=getattr(torch, settings.dtype),
        device=pick_device(settings.device),
        guidance=settings.guidance,
        pixels=settings.pixels,
        text_tokens=settings.text_tokens,
        quantize=memory.quantize,
        offload=memory.offload,
    )
    apply_memory(editor, memory)
    return editor


def load_judge(config: Config) -> Judge:
    """The judge that a config names, on the editor's device and in its number format."""
    settings = config.judge
    return TransformersJudge(
        locate(settings.path),
        method=settings.method,
        batch_size=settings.batch_size,
        device=pick_device(config.editor.device),
        dtype=getattr(torch, config.editor.dtype),
    )


def load_dataset(settings: DataConfig) -> EditDataset:
    """The dataset that a config names."""
    if settings.kind == "jsonl" and settings.path is not None:
        return JsonlDataset(settings.path)
    from editr1.toy.world import ToyDataset

    return ToyDataset(settings.split, settings.size, settings.seed, settings.level)


def locate(path: str) -> str | Path:
    """A path or hub name as it is; "toy:NAME" as the folder of what is shipped under that name."""
    if not path.startswith("toy:"):
        return path
    from editr1.toy.assets import toy_path

    return toy_path(path.removeprefix("toy:"))


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" is a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    found = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(found if name == "auto" else name)
    except RuntimeError as error:
        raise UserError(f"editor.device={name!r} is no device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"editor.device={name!r}: there is no GPU here; use auto or cpu")
    return device
