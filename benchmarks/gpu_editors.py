"""Editors at their published sizes with random weights, without a download.

Sizes are those that `editr1 plan` reads (src/editr1/planning/sizes). Weights are drawn on the device, in their number
format, one tensor after the other; `quantize` goes the way of diffusers' `from_pretrained`, which takes each weight as
it is read.
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers
from accelerate.utils import set_module_tensor_to_device
from diffusers import DiffusionPipeline
from diffusers.quantizers import DiffusersAutoQuantizer
from torch import Tensor, nn

from editr1.config.settings import Quantization
from editr1.editors.memory import quantization
from editr1.planning.pipelines import build_model, build_tokenizers, ids_of, read_sizes, without_class

DEVIATION = 0.02


def build_pipeline(
    name: str, dtype: torch.dtype, device: torch.device, quantize: Quantization | None = None, tiny: bool = False
) -> DiffusionPipeline:
    """The pipeline with random weights, on its device.

    Raises:
        UserError: `quantize` lacks its package or a GPU.
    """
    kind, parts = read_sizes(name, tiny)
    words = build_tokenizers(kind)
    generator = torch.Generator(device).manual_seed(0)
    built: dict[str, Any] = {}
    for part, sizes in parts.items():
        if part == "scheduler":
            built[part] = diffusers.FlowMatchEulerDiscreteScheduler.from_config(without_class(sizes))
            continue
        model = build_model(sizes, ids_of(sizes["class"], words))
        if part == "transformer" and quantize is not None:
            fill_quantized(model, quantize, dtype, generator)
        else:
            fill(model, dtype, generator)
        built[part] = model
    settings = {"is_distilled": False} if kind == "Flux2KleinPipeline" else {}
    pipe: DiffusionPipeline = getattr(diffusers, kind)(**built, **words, **settings)
    return pipe.to(device)  # buffers


def draw(name: str, like: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A weight: 0 for a bias, 1 for any other vector (it scales, as a norm's), else normal."""
    weight = torch.empty(like.shape, dtype=dtype, device=generator.device)
    if name.endswith("bias"):
        return weight.zero_()
    if like.squeeze().ndim == 1:
        return weight.fill_(1)
    return weight.normal_(std=DEVIATION, generator=generator)


def fill(model: nn.Module, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Draw the weights of a model that has none."""
    for name, param in list(model.named_parameters()):
        set_module_tensor_to_device(model, name, generator.device, value=draw(name, param, dtype, generator))
    if isinstance(model, transformers.PreTrainedModel):
        model.tie_weights()
    for name, buffer in list(model.named_buffers()):
        if buffer.is_floating_point() and name in model.state_dict():
            set_module_tensor_to_device(model, name, generator.device, value=buffer.to(dtype))


def fill_quantized(model: Any, kind: Quantization, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Draw the weights of a denoiser, and quantise those of its linear layers, as diffusers does while it reads them.

    Raises:
        UserError: A package or a GPU is missing.
    """
    config = quantization(kind, "transformer", dtype).quant_mapping["transformer"]
    quantizer = DiffusersAutoQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None, keep_in_fp32_modules=[])
    for name, param in list(model.named_parameters()):
        value = draw(name, param, dtype, generator)
        if quantizer.check_if_quantized_param(model, value, name, {}, param_device=generator.device):
            quantizer.create_quantized_param(model, value, name, generator.device, {}, [], dtype=dtype)
        else:
            set_module_tensor_to_device(model, name, generator.device, value=value)
    quantizer.postprocess_model(model)
    model.hf_quantizer = quantizer
