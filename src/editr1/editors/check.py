"""Whether an editor can be loaded and fits on the device, before a run: no weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from editr1.config.settings import EditorConfig, MemoryConfig
from editr1.editors.editor import check_area
from editr1.editors.family import DENOISERS, Family
from editr1.editors.memory import quantization
from editr1.editors.open import find_family
from editr1.errors import UserError
from editr1.model_files import is_hub_name, parameters
from editr1.toy.assets import locate

BYTES = {"nf4": 0.5, "int8": 1.0}
"""Bytes of a quantised parameter."""
Weights = dict[str, int]
"""Number of parameters by component of a pipeline."""


def check_editor(settings: EditorConfig, memory: MemoryConfig, dtype: torch.dtype) -> tuple[Family | None, Weights]:
    """The editor's record, None if it is not known yet, and its weights, none for a model on the hub.

    Raises:
        UserError: There is no such pipeline, a file of it is missing, its pictures are too small, or a package or GPU
            that `memory` needs is missing.
    """
    path = locate(settings.path)
    family = find_family(path)
    if family is not None and settings.pixels is not None:
        check_area(family, settings.pixels)
    if memory.quantize is not None:
        quantization(memory.quantize, DENOISERS[0], dtype)
    return family, {} if is_hub_name(str(path)) else component_weights(Path(path))


def component_weights(folder: Path) -> Weights:
    """Parameters of each model of a pipeline's folder.

    Raises:
        UserError: A component that the pipeline's index names is not there, or its weights are not.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    names = [name for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
    for name in names:
        if not (folder / name).is_dir():
            raise UserError(f"editor.path={str(folder)!r} lacks the folder {name}: copy all files of the pipeline")
    return {name: parameters(folder / name) for name in names if (folder / name / "config.json").is_file()}


def bytes_on_device(weights: Weights, memory: MemoryConfig, dtype: torch.dtype) -> int:
    """Bytes of the weights on the device of training: the denoiser's alone if all others are offloaded."""
    sizes = {name: count * dtype.itemsize for name, count in weights.items()}
    for name in [name for name in weights if name in DENOISERS and memory.quantize is not None]:
        sizes[name] = int(weights[name] * BYTES[str(memory.quantize)])
    return sum(size for name, size in sizes.items() if name in DENOISERS or not memory.offload)
