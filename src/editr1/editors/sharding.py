"""Weights spread over ranks by PyTorch's `fully_shard` (FSDP2): each rank keeps 1/N of every tensor of the editor.

The ranks are a mesh, replicate x fsdp: `parallel.shard` neighbours hold one copy together, and every group of them
holds the same. A block's weights are gathered for its forward and backward pass and freed after each. The denoiser's
frozen weights are sharded before it gets policies, so LoRA weights are whole on each rank, and what is done with them
(policies, averages, checkpoints, exports) is as in one process.

Every rank of a group must call a sharded model equally often: each call gathers weights.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import snapshot_download
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from editr1.editors.family import LARGE as LARGE
from editr1.editors.weight_files import open_tensors, read_part
from editr1.errors import UserError

ROOMY = 0.25
"""Share of a GPU's memory below which the gathered weights of the whole denoiser may stay there between calls."""
Meeting = Callable[[str], None]
"""Waits until all ranks are at the place that the argument names."""


def alone(place: str) -> None:
    """The meeting of a world of one rank."""


def open_mesh(ranks: int, shard: int, device: str) -> DeviceMesh | None:
    """The mesh replicate x fsdp of all ranks, for devices of one type; None for `shard` 1: nothing is spread.

    Raises:
        UserError: The ranks are no multiple of `shard`.
    """
    if shard == 1:
        return None
    groups = groups_of(ranks, shard, f"parallel.shard={shard} spreads weights over {shard} processes")
    # PEFT takes a dimension of this name for sharded storage, and any other one for tensor parallelism
    return init_device_mesh(device, (groups, shard), mesh_dim_names=("replicate", "fsdp"))


def groups_of(ranks: int, size: int, setting: str) -> int:
    """How many groups of `size` ranks there are; a UserError that begins with `setting` if there is a rest."""
    if ranks % size:
        raise UserError(
            f"{setting}, and {ranks} is no multiple of it; start them by `torchrun --nproc-per-node {size}`, or set it "
            "to 1"
        )
    return ranks // size


def is_sharded(model: nn.Module) -> bool:
    """Whether a denoiser's weights are spread over ranks."""
    return isinstance(model, FSDPModule)


def shard_denoiser(denoiser: nn.Module, mesh: DeviceMesh, keep_gathered: bool = False) -> None:
    """Spread all weights of a denoiser, which may be on the meta device, over the ranks of a group.

    Args:
        denoiser: A diffusers model; its class keeps its name, which diffusers writes into files.
        mesh: Mesh of `open_mesh`.
        keep_gathered: Whether weights stay whole between the forward and the backward pass.
    """
    # some blocks return a view, which their denoisers, as tests show, do not change in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    # replicas are summed once per step, by the trainer: fully_shard sees the group alone
    for module in [*blocks_of(denoiser), denoiser]:
        _shard(module, mesh["fsdp"], not keep_gathered)


def shard_text_encoder(model: nn.Module, mesh: DeviceMesh) -> None:
    """Spread the layers of a text encoder; its embeddings stay whole.

    Pipelines call some text encoders not as a whole but by parts; each layer is therefore gathered on its own.
    """
    for module in blocks_of(model):
        _shard(module, mesh["fsdp"], True)


def is_large(model: Any) -> bool:
    """Whether a component of a pipeline has so many parameters that it is sharded too."""
    return isinstance(model, nn.Module) and sum(weight.numel() for weight in model.parameters()) >= LARGE


def keeps_gathered(denoiser: nn.Module, device: torch.device) -> bool:
    """Whether the whole weights take so little of the device's memory that they need not be freed between calls."""
    if device.type != "cuda":
        return False
    whole = sum(weight.numel() * weight.element_size() for weight in denoiser.parameters())
    return is_roomy(torch.cuda.get_device_properties(device).total_memory, whole)


def is_roomy(memory: float, whole: float) -> bool:
    """Whether a GPU with so many bytes of memory keeps the whole weights of a denoiser between its calls."""
    return whole < ROOMY * memory


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks that repeat in a model: those that diffusers names, or else the members of its outermost lists."""
    names = getattr(model, "_repeated_blocks", None) or ()
    named = [module for module in model.modules() if type(module).__name__ in names]
    return named or list(_members(model))


def _members(model: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        yield from child if isinstance(child, nn.ModuleList) else _members(child)


def _shard(module: nn.Module, mesh: DeviceMesh, reshard: bool) -> None:
    """`fully_shard`, after which the module's class has the name and place of the original one."""
    original = type(module)
    sharded = fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
    sharded.set_gradient_divide_factor(1.0)  # ranks hold parts of one mean: their gradients are summed
    sharded.set_force_sum_reduction_for_comms(True)  # by a plain sum, which gloo knows too
    for name in ("__name__", "__qualname__", "__module__"):
        setattr(type(module), name, getattr(original, name))


def empty_denoiser(path_or_id: str | Path, component: str, dtype: torch.dtype) -> nn.Module:
    """A pipeline's denoiser with its weights on the meta device: all but their values."""
    index = diffusers.DiffusionPipeline.load_config(path_or_id)
    kind: type[ModelMixin] = getattr(diffusers, index[component][1])
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # as diffusers does: buffers are computed in it
    try:
        with init_empty_weights():  # parameters alone; buffers and rotary tables have their values
            denoiser = kind.from_config(kind.load_config(path_or_id, subfolder=component))
    finally:
        torch.set_default_dtype(before)
    for name, weight in denoiser.named_parameters():
        if set(kind._keep_in_fp32_modules or ()) & set(name.split(".")):
            weight.data = weight.data.float()
    return denoiser.eval().requires_grad_(False)


def read_shards(denoiser: nn.Module, path_or_id: str | Path, component: str, device: torch.device) -> None:
    """Read this rank's part of each tensor of a sharded denoiser on the meta device, and nothing else.

    Raises:
        ValueError: The files do not hold exactly the weights of the denoiser.
        OSError: They cannot be read.
    """
    places = open_tensors(_weight_files(path_or_id, component))
    wanted = denoiser.state_dict()
    if misfits := sorted(wanted.keys() ^ places.keys()):
        raise ValueError(f"{component}: weights are missing or left over, first {misfits[0]!r}")
    parts = {}
    for name, tensor in wanted.items():
        if (shape := list(places[name].get_shape())) != list(tensor.shape):
            raise ValueError(f"{name} has the shape {shape} in the file, {list(tensor.shape)} in its config")
        parts[name] = read_part(places[name], tensor, device).to(tensor.dtype)
    denoiser.load_state_dict(parts, assign=True)


def _weight_files(path_or_id: str | Path, component: str) -> list[Path]:
    """The safetensors of a component, downloaded if it is on the hub."""
    root = Path(path_or_id)
    if not root.is_dir():
        patterns = [f"{component}/*.json", f"{component}/diffusion_pytorch_model*.safetensors"]
        root = Path(snapshot_download(str(path_or_id), allow_patterns=patterns))
    folder = root / component
    if (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        return [folder / SAFETENSORS_WEIGHTS_NAME]
    if (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        return sorted(folder.glob("diffusion_pytorch_model-*-of-*.safetensors"))
    raise FileNotFoundError(f"{folder} has no {SAFETENSORS_WEIGHTS_NAME}, which sharding reads")


@contextmanager
def turn(meet: Meeting, place: str) -> Iterator[None]:
    """Enter one rank of a machine after the other, so that a machine holds one whole copy of a model at a time."""
    rank, ranks = (int(os.environ.get(name, value)) for name, value in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")))
    for _ in range(rank):
        meet(place)
    yield
    for _ in range(rank, ranks):
        meet(place)
