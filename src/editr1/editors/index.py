"""The index of a pipeline's folder, model_index.json: its class and components, known before any weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from editr1.errors import UserError
from editr1.model_files import UNREACHABLE, check_hub, is_hub_name

FILE = "model_index.json"
ABSENT: tuple[type[Exception], ...] = (*UNREACHABLE, ValueError)
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")


def read_index(path_or_id: str | Path) -> dict[str, Any]:
    """The index of a pipeline in a folder or on the hub.

    Raises:
        UserError: There is none.
    """
    where = place_of(path_or_id)
    if is_hub_name(str(path_or_id)):
        check_hub(str(path_or_id), FILE, where)
    try:
        return _read(path_or_id)
    except ABSENT as error:
        remedy = f"give a folder with a {FILE}, or a hub id."
        raise UserError(f"{where}: no diffusers pipeline there; {remedy}") from error


def check_scheduler(index: Mapping[str, Any], where: str) -> None:
    """Refuse a pipeline that does no flow matching."""
    name = str(index.get("_class_name"))
    scheduler = (index.get("scheduler") or [None, None])[1]
    if scheduler is None:
        raise UserError(f"{where}: {name} has no scheduler, so it is no diffusion pipeline.")
    if scheduler not in FLOW_SCHEDULERS:
        raise UserError(
            f"{where}: {name} samples by {scheduler}, so its denoiser predicts no flow-matching velocity; editr1 "
            "trains pipelines with a FlowMatchEulerDiscreteScheduler (`editr1 editor list`)."
        )


def place_of(path_or_id: str | Path) -> str:
    """How messages name a pipeline."""
    return f"editor.path={str(path_or_id)!r}"


def _read(path_or_id: str | Path) -> dict[str, Any]:
    is_hub = is_hub_name(str(path_or_id))
    file = Path(hf_hub_download(str(path_or_id), FILE)) if is_hub else Path(path_or_id) / FILE
    index = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(index, dict):
        raise ValueError(f"{file} holds no index")
    return index
