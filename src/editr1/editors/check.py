"""Whether the files of an editor are there and fit on the device: no weights are loaded, and no diffusers."""

from __future__ import annotations

from pathlib import Path

import torch

from editr1.config.settings import EditorConfig, MemoryConfig
from editr1.editors.families import FAMILIES
from editr1.editors.family import DENOISERS, LARGE, Family, check_area
from editr1.editors.index import check_scheduler, place_of, read_index
from editr1.errors import UserError
from editr1.model_files import is_hub_name, parameters
from editr1.toy.assets import locate

BYTES = {"nf4": 0.5, "int8": 1.0}
"""Bytes of a quantised parameter."""
Weights = dict[str, int]
"""Number of parameters by component of a pipeline."""


def check_editor(settings: EditorConfig) -> tuple[Family | None, Weights]:
    """The editor's record, None if it is not known yet, and its weights, none for a model on the hub.

    Raises:
        UserError: There is no such pipeline, a file of it is missing, or its pictures are too small.
    """
    path = locate(settings.path)
    index = read_index(path)
    check_scheduler(index, place_of(path))
    family = FAMILIES.get(str(index.get("_class_name")))
    if family is not None and settings.pixels is not None:
        check_area(family, settings.pixels)
    return family, {} if is_hub_name(str(path)) else component_weights(Path(path))


def component_weights(folder: Path) -> Weights:
    """Parameters of each model of a pipeline's folder.

    Raises:
        UserError: A component that the pipeline's index names is not there, or its weights are not.
    """
    index = read_index(folder)
    names = [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
    for name in names:
        if not (folder / name).is_dir():
            raise UserError(f"editor.path={str(folder)!r} lacks the folder {name}: copy all files of the pipeline")
    return {name: parameters(folder / name) for name in names if (folder / name / "config.json").is_file()}


def bytes_on_device(weights: Weights, memory: MemoryConfig, dtype: torch.dtype, shard: int = 1) -> int:
    """Bytes of the weights on the device of training: the denoiser's alone if all others are offloaded.

    Over `shard` processes the denoiser is spread, and so are large text encoders that nothing keeps whole.
    """
    whole = memory.cache is not None
    total = 0.0
    for name, count in weights.items():
        if name in DENOISERS:
            total += count * BYTES.get(str(memory.quantize), dtype.itemsize) / shard
        elif not memory.offload:
            total += count * dtype.itemsize / (shard if count >= LARGE and not whole else 1)
    return int(total)
