"""The device of a model, its memory, and the number format of weights there."""

from __future__ import annotations

import os
import re
from pathlib import Path

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
    except (RuntimeError, ValueError) as error:
        raise UserError(f"editor.device={name!r} is no device; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"editor.device={name!r}: only cpu and cuda are supported; use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"editor.device={name!r}: there is no GPU here; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"editor.device={name!r}: the GPUs here are 0 to {torch.cuda.device_count() - 1}")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """A number format by name; "auto" is bfloat16 on a GPU, and float32 on a CPU, where bfloat16 is slow."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def memory_of(device: torch.device) -> int:
    """All memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory_of(device: torch.device) -> int:
    """Memory of a device in bytes that is not in use, as far as the system tells; of the CPU, what can be had."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (available := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        return 1024 * int(available[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
