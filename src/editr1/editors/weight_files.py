"""Weights in safetensors files that ranks read and write in parts: no rank needs memory for more than one file.

Reading: a rank reads its shard of each tensor. Writing: the ranks gather one tensor after the other, and each writes
other files. The files are those of one process, which the same functions read and write, whatever the number of ranks.
PyTorch's distributed checkpoints are not used: ranks send each other pickles to plan them, and their metadata is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from editr1.files import sync

LIMIT = 10**10
"""Bytes of a file of weights at most, as diffusers chooses it; a larger tensor has a file of its own."""


def open_tensors(files: Iterable[Path]) -> dict[str, Any]:
    """The tensors in safetensors files by name, as slices of which nothing is read yet.

    Raises:
        OSError, SafetensorError: A file cannot be read.
    """
    handles = [safe_open(file, framework="pt") for file in files]
    return {name: handle.get_slice(name) for handle in handles for name in handle.keys()}  # noqa: SIM118


def read_part(part: Any, like: Tensor | None = None, device: torch.device | None = None) -> Tensor:
    """A tensor of `open_tensors` in its own number format; of a sharded tensor `like` with its shape, this rank's part.

    Args:
        part: The tensor in its file.
        like: A tensor whose sharding and device it gets; None for none.
        device: Another device than that of `like`.
    """
    device = device or (torch.device("cpu") if like is None else like.device)
    if not isinstance(like, DTensor) or list(part.get_shape()) != list(like.shape):
        whole: Tensor = part[...]
        return whole.to(device)
    mesh, placements = like.device_mesh, like.placements
    shape, offset = compute_local_shape_and_global_offset(like.shape, mesh, placements)
    local = part[offset[0] : offset[0] + shape[0]] if shape[0] else part[:0]
    return DTensor.from_local(
        local.to(device), mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def write_parts(tensors: Mapping[str, Tensor], folder: Path, pattern: str, limit: int = LIMIT) -> None:
    """Write tensors into safetensors files of a folder, and where there are several files, an index.

    If tensors are sharded, all ranks that hold them together call this; ranks that hold a further copy do nothing.

    Args:
        tensors: By name.
        folder: Is created.
        pattern: Name of a file, with "{suffix}" where the number of the file goes if there are several.
        limit: Size of a file at most, in bytes.

    Raises:
        OSError, SafetensorError: This rank, or another one, cannot write its files.
    """
    mesh = next((tensor.device_mesh for tensor in tensors.values() if isinstance(tensor, DTensor)), None)
    if mesh is not None and dist.get_rank() >= mesh.size():
        return
    rank, ranks = (0, 1) if mesh is None else (mesh.get_local_rank(), mesh.size())
    shapes = {name: torch.empty(each.shape, dtype=each.dtype, device="meta") for name, each in tensors.items()}
    plan = split_torch_state_dict_into_shards(shapes, filename_pattern=pattern, max_shard_size=limit)
    problem: Exception | None = None
    for number, (file, names) in enumerate(plan.filename_to_tensors.items()):
        own = number % ranks == rank
        whole = {name: value.cpu() for name in names if (value := _whole(tensors[name], own)) is not None}
        try:
            if own:
                folder.mkdir(parents=True, exist_ok=True)
                save_tensors(whole, folder / file, {})
                sync(folder / file)
            if own and number == 0 and plan.is_sharded:
                index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
                (folder / f"{pattern.format(suffix='')}.index.json").write_text(json.dumps(index, indent=2) + "\n")
        except (OSError, SafetensorError) as error:
            problem = problem or error  # the others wait for this rank's part of the next tensor
    if mesh is not None:
        failures = torch.tensor(float(problem is not None), device=mesh.device_type)
        dist.all_reduce(failures, group=mesh.get_group())
        if problem is None and failures:
            problem = OSError("another rank could not write its files")
    if problem is not None:
        raise problem


def save_tensors(tensors: dict[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; equal tensors and metadata make equal bytes, and whoever reads the folder may read it.

    The library writes the entries of metadata in an order that changes from process to process; here they are sorted.
    It gives the file to its owner alone.

    Raises:
        OSError, SafetensorError: The file cannot be written.
    """
    save_file(tensors, file, metadata={"format": "pt", **metadata})
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise OSError(f"{file}: the header is not written as this version of safetensors writes it")
        opened.seek(8)
        opened.write(text.ljust(length))
    file.chmod(file.parent.stat().st_mode & 0o666)


def _whole(tensor: Tensor, own: bool) -> Tensor | None:
    """The whole tensor, to which every rank gives its part; None if this rank does not write it."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().contiguous() if own else None
