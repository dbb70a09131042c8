"""How an editor fits on the hardware: diffusers' ways to save memory, applied from outside.

`editors/open.py` calls these functions: `quantization` (the number format of the denoiser's frozen weights) and `place`
(the device of each component) while it loads the weights, all others on the loaded editor.

Only `checkpoint_blocks` knows of policies: it computes a block again under the policy of its forward pass. All others
work on any denoiser, with a LoRA or without: a block is compiled at its first call, and again at the first call after a
LoRA is added or another policy becomes active, because torch guards on the attributes that PEFT switches; what was
compiled for a policy serves all its later calls. docs/memory.md says what each setting saves and costs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, DiffusionPipeline, PipelineQuantizationConfig, TorchAoConfig
from diffusers.hooks import apply_group_offloading
from diffusers.models import AttentionBackendName, attention_backend
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn
from torch.utils.checkpoint import checkpoint

from editr1.config.settings import Quantization
from editr1.editors.policies import Policies
from editr1.editors.sharding import blocks_of
from editr1.errors import UserError, first_line, tell

PACKAGES = {"nf4": "bitsandbytes", "int8": "torchao"}
AMPERE = (8, 0)
"""Compute capability of the first GPUs with TF32."""
UNUSABLE = (ValueError, RuntimeError, ImportError, OSError, TypeError, AssertionError)
"""Errors of an attention backend that does not run here."""
VERSIONS = 12
"""Of a compiled block that a run needs: four policies without gradient, and "default" with it twice, as the first
block's input has none; each for one row and for several."""
RECOMPILES = 64
"""Largest number of versions of a compiled block. Past it (8 in torch) torch calls the block as it is, without an
error."""


def quantization(kind: Quantization, denoiser: str, dtype: torch.dtype) -> PipelineQuantizationConfig:
    """The argument of `DiffusionPipeline.from_pretrained` that quantises only the linear layers of the denoiser.

    Args:
        kind: "nf4" for 4-bit NormalFloat (bitsandbytes), "int8" for 8-bit integers, weight only (torchao).
        denoiser: Name among the pipeline's components.
        dtype: Number format of the layers' computation.

    Raises:
        UserError: A package or a GPU is missing.
    """
    package = PACKAGES[kind]
    if find_spec(package) is None:
        raise UserError(f"memory.quantize={kind!r} needs the package {package}: pip install {package}")
    if kind == "int8":
        int8 = TorchAoConfig(import_module("torchao.quantization").Int8WeightOnlyConfig())
        return PipelineQuantizationConfig(quant_mapping={denoiser: int8})
    if not torch.cuda.is_available():  # diffusers requires one for bitsandbytes
        raise UserError("memory.quantize='nf4': there is no GPU here; use int8, which works on a CPU too, or null.")
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return PipelineQuantizationConfig(quant_mapping={denoiser: nf4})


def place(pipe: DiffusionPipeline, device: str | torch.device, denoiser: str | None = None) -> DiffusionPipeline:
    """Put a pipeline on a device, or only its component `denoiser`.

    Every other model then stays on the CPU, and each of its layers comes to the device while it computes. Hooks on
    whole models are not enough: pipelines also call `encode` and `decode` of text encoders and the VAE.
    """
    if denoiser is None:
        return pipe.to(device)
    getattr(pipe, denoiser).to(device)
    for name, component in pipe.components.items():
        if name != denoiser and isinstance(component, nn.Module):
            apply_group_offloading(component, onload_device=torch.device(device), offload_type="leaf_level")
    return pipe


def tile_vae(pipe: Any) -> None:
    """Let the VAE encode and decode large pictures in overlapping tiles."""
    try:
        pipe.vae.enable_tiling()
    except (AttributeError, NotImplementedError) as error:
        raise UserError(f"memory.vae_tiling: {type(pipe).__name__} has no VAE that tiles; set it to false.") from error


def set_attention(denoiser: Any, name: str) -> None:
    """Compute the denoiser's attention with another of diffusers' backends; other models keep theirs.

    Raises:
        UserError: There is no such backend, it does not run here, or it computes no gradients.
    """
    weight = next(denoiser.parameters())
    dtype = weight.dtype if weight.is_floating_point() else torch.bfloat16
    try:
        with attention_backend(name):  # restores the backend of all other models
            denoiser.set_attention_backend(name)
        _try_attention(name, weight.device, dtype)
        processors = [module.processor for module in denoiser.modules() if hasattr(module, "processor")]
        if not any(getattr(processor, "_attention_backend", None) == name for processor in processors):
            raise ValueError(f"{type(denoiser).__name__} computes attention in its own way")
    except UNUSABLE as error:
        denoiser.reset_attention_backend()
        usable = ", ".join(usable_attention(weight.device, dtype))
        raise UserError(
            f"memory.attention={name!r} cannot train this editor on {weight.device.type} in {dtype}: "
            f"{first_line(error)}; available: {usable}, or null for diffusers' default."
        ) from error


def usable_attention(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Names of the backends that run here and compute gradients, without those that need a download."""
    names = []
    for name in [backend.value for backend in AttentionBackendName if not backend.value.endswith("_hub")]:
        with suppress(*UNUSABLE):
            _try_attention(name, device, dtype)
            names.append(name)
    return names


def _try_attention(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """One forward and one backward pass, as in training; a kernel for inference only would drop gradients silently."""
    inputs = [torch.ones(1, 16, 2, 64, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]  # 1 N H C
    with torch.enable_grad(), attention_backend(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = dispatch_attention_fn(*inputs)
        if output.requires_grad:
            output.float().sum().backward()
    if any(tensor.grad is None for tensor in inputs):
        raise RuntimeError("it computes no gradients")


def checkpoint_blocks(denoiser: Any, policies: Callable[[], Policies]) -> None:
    """Keep only the inputs of the denoiser's blocks, and compute each block again in the backward pass.

    The policy of the forward pass computes a block again, whatever policy is active at the backward pass; `policies`
    returns the denoiser's policies, which may be added later.
    """

    def run(block: Callable[..., Any], *args: Any) -> Any:
        policy = policies().active

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), policies().using(policy)

        return checkpoint(block, *args, use_reentrant=False, context_fn=contexts)

    try:
        denoiser.enable_gradient_checkpointing(run)
    except ValueError as error:
        name, remedy = type(denoiser).__name__, "set it to false and lower optim.micro_batch."
        raise UserError(f"memory.gradient_checkpointing: {name} does not support it; {remedy}") from error


def multiply_in_tf32(on: bool, device: torch.device) -> None:
    """Whether float32 matrices are multiplied in TF32, with 10 bits of mantissa; holds for the whole process.

    Convolutions are not meant: cuDNN's use TF32 unless `torch.backends.cudnn.allow_tf32` is off.
    """
    if on:
        check_tf32(device)
    torch.set_float32_matmul_precision("high" if on else "highest")


def check_tf32(device: torch.device) -> None:
    """Refuse a device without TF32."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < AMPERE:
        raise UserError(f"memory.tf32: {device.type} here has no TF32, unlike GPUs since the A100; set it to false.")


def compile_blocks(denoiser: Any, backend: str = "inductor") -> None:
    """Compile the denoiser's repeated blocks at their first call, for any number of rows and tokens."""
    from torch._dynamo import config as dynamo  # slow to import
    from torch.fx.experimental import _config as shapes

    try:
        denoiser.compile_repeated_blocks(fullgraph=False, dynamic=True, backend=backend)
    except ValueError as error:
        name = type(denoiser).__name__
        raise UserError(f"memory.compile: diffusers names no repeated blocks of {name}; set it to false.") from error
    dynamo.recompile_limit = max(dynamo.recompile_limit, RECOMPILES)
    shapes.use_duck_shape = False  # else as many tokens as a layer is wide would be taken for its width
    _watch_compilations(denoiser, VERSIONS * len({type(block) for block in blocks_of(denoiser)}))


def _watch_compilations(denoiser: nn.Module, expected: int) -> None:
    """Tell once if a run has compiled more often than `expected`."""
    from torch._dynamo.utils import counters  # slow to import

    before = counters["stats"]["unique_graphs"]

    def watch(*call: Any) -> None:
        if (made := counters["stats"]["unique_graphs"] - before) > expected:
            handle.remove()
            tell(
                f"warning: the denoiser's blocks were compiled {made} times, and {expected} are what a run needs; each "
                f"time costs seconds to minutes. TORCH_LOGS=recompiles says why; memory.compile=false avoids it"
            )

    handle = denoiser.register_forward_hook(watch)
