"""The device of a model."""

from __future__ import annotations

import torch

from editr1.errors import UserError


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" is a GPU if there is one.

    Raises:
        UserError: There is no such device.
    """
    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(default if name == "auto" else name)
    except RuntimeError as error:
        raise UserError(f"editor.device={name!r} is no device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"editor.device={name!r}: there is no GPU here; use auto or cpu")
    return device
