"""Which device a model runs on."""

from __future__ import annotations

import torch

from editr1.errors import UserError


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
