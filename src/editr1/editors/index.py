"""The index of a pipeline's folder, model_index.json: its class and components, known before any weight is loaded.

It comes from strangers, and diffusers loads what it names. So it is checked here, and nothing opens a pipeline without:
a component is a class of diffusers or transformers, and no file of the folder is run as its code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from editr1.errors import NOT_JSON, UserError, text_of
from editr1.model_files import UNREACHABLE, check_hub, is_hub_name, refuse_devices

FILE = "model_index.json"
ABSENT: tuple[type[Exception], ...] = (*UNREACHABLE, *NOT_JSON)
LIBRARIES = ("diffusers", "transformers")
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")


def read_index(path_or_id: str | Path) -> dict[str, Any]:
    """The index of a pipeline in a folder or on the hub.

    Raises:
        UserError: There is none, it is odd, or a component is not of diffusers or transformers.
    """
    where = place_of(path_or_id)
    if is_hub_name(str(path_or_id)):
        check_hub(str(path_or_id), FILE, where)
    try:
        index = _read(path_or_id)
    except ABSENT as error:
        remedy = f"give a folder with a {FILE}, or a hub id."
        raise UserError(f"{where}: no diffusers pipeline there; {remedy}") from error
    _check(index, Path(path_or_id), where)
    refuse_devices(Path(path_or_id), where)
    return index


def _check(index: Mapping[str, Any], folder: Path, where: str) -> None:
    """Refuse an index of odd form, and all that would run code of the model's authors."""
    if not isinstance(index.get("_class_name"), str):
        raise UserError(f"{where}: its {FILE} names no pipeline class of diffusers; editr1 runs no code of models")
    for name, entry in index.items():
        if not isinstance(entry, list) or name.startswith("_"):
            continue
        if entry == [None, None]:
            continue
        library, kind = entry if len(entry) == 2 else (None, None)
        known = library in LIBRARIES and isinstance(kind, str) and kind != "AutoModel"  # which takes others' classes
        if not (known and name.isidentifier()):
            words = f"its component {json.dumps([name, entry])[:80]} is no class of {' or '.join(LIBRARIES)}"
            raise UserError(f"{where}: {words}; editr1 runs no code of models")
        if code := [*(folder / name).glob("*.py")]:
            raise UserError(f"{where}: it holds code ({name}/{code[0].name}); editr1 runs no code of models: delete it")


def check_scheduler(index: Mapping[str, Any], where: str) -> None:
    """Refuse a pipeline that does no flow matching."""
    name = str(index.get("_class_name"))
    scheduler = index["scheduler"][1] if isinstance(index.get("scheduler"), list) else None
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
    index = json.loads(text_of(file))
    if not isinstance(index, dict):
        raise ValueError(f"{file} holds no index")
    return index
