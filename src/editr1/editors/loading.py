"""From a folder or hub id to a diffusers pipeline, with one line of explanation for whatever may be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from editr1.editors.families import Family
from editr1.editors.memory import Quantization, place, quantization
from editr1.editors.records import FAMILIES
from editr1.errors import UserError

FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")


def find_family(path_or_id: str | Path) -> Family | None:
    """The record for a pipeline folder or hub id; None where its pipeline class has no record.

    Raises:
        UserError: nothing is there, or it is no flow-matching pipeline.
    """
    where = f"editor.path={str(path_or_id)!r}"
    try:
        index: dict[str, Any] = DiffusionPipeline.load_config(path_or_id)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: no diffusers pipeline there; give a folder with a model_index.json, or a hub id."
        ) from error
    name = str(index.get("_class_name"))
    if not hasattr(diffusers, name):
        raise UserError(f"{where}: this diffusers ({diffusers.__version__}) has no {name}; install one that has it.")
    scheduler = (index.get("scheduler") or [None, None])[1]
    if scheduler is None:
        raise UserError(f"{where}: {name} has no scheduler, so it is no diffusion pipeline.")
    if scheduler not in FLOW_SCHEDULERS:
        raise UserError(
            f"{where}: {name} samples by {scheduler}, so its denoiser predicts no flow-matching velocity; editr1 "
            "trains pipelines with a FlowMatchEulerDiscreteScheduler (`editr1 editor list`)."
        )
    return FAMILIES.get(name)


def load_pipeline(
    path_or_id: str | Path,
    dtype: torch.dtype,
    device: str | torch.device,
    *,
    quantize: Quantization | None = None,
    offload: bool = False,
) -> DiffusionPipeline:
    """Load all weights.

    Args:
        path_or_id: what `DiffusionPipeline.from_pretrained` takes.
        dtype: of all weights that are not quantised.
        device: where the pipeline goes.
        quantize: how the denoiser's weights are held; None: as `dtype`.
        offload: all but the denoiser stay on the CPU and come to `device` while they compute.

    Raises:
        UserError: they cannot be read, or do not fit their configs; a package that `quantize` takes is missing.
    """
    denoiser = _denoiser(path_or_id) if quantize or offload else None
    settings = {"quantization_config": quantization(quantize, denoiser, dtype)} if quantize and denoiser else {}
    try:
        pipe = DiffusionPipeline.from_pretrained(path_or_id, dtype=dtype, **settings)
        return place(pipe, device, denoiser if offload else None)
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"editor.path={str(path_or_id)!r}: cannot load the pipeline: {_first_line(error)}") from error


def _denoiser(path_or_id: str | Path) -> str:
    """Name of the denoiser among a pipeline's components."""
    from editr1.editors.probe import DENOISERS

    index = DiffusionPipeline.load_config(path_or_id)
    return next((name for name in DENOISERS if name in index), DENOISERS[0])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
