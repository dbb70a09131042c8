"""Tiny FLUX pipelines without text encoders and VAE: a denoiser, and the pipeline's way to load a LoRA into it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from peft import LoraConfig
from torch import Tensor

SIZES = {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 3, "joint_attention_dim": 24}


def build_flux_1() -> FluxKontextPipeline:
    """FLUX.1: two double blocks, two single ones, width 48."""
    torch.manual_seed(1)
    denoiser = FluxTransformer2DModel(
        **SIZES, in_channels=16, num_single_layers=2, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6)
    )
    parts = dict.fromkeys(["vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"])
    return FluxKontextPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), transformer=denoiser.eval(), **parts)


def build_flux_2() -> Flux2KleinPipeline:
    """FLUX.2: likewise."""
    torch.manual_seed(2)
    denoiser = Flux2Transformer2DModel(
        **SIZES, in_channels=16, num_single_layers=2, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16
    )
    parts = dict.fromkeys(["vae", "text_encoder", "tokenizer"])
    return Flux2KleinPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), transformer=denoiser.eval(), **parts)


@torch.no_grad()
def output(denoiser: Any) -> Tensor:
    """What a FLUX denoiser answers to a fixed random question, [2, 6, 16]."""
    generator = torch.Generator().manual_seed(3)
    axes = 4 if "Flux2" in type(denoiser).__name__ else 3
    arguments = {
        "hidden_states": torch.randn(2, 6, 16, generator=generator),
        "encoder_hidden_states": torch.randn(2, 5, 24, generator=generator),
        "timestep": torch.tensor([0.3, 0.8]),
        "img_ids": torch.randint(0, 4, (6, axes), generator=generator).float(),
        "txt_ids": torch.zeros(5, axes),
    }
    if axes == 3:
        arguments["pooled_projections"] = torch.randn(2, 8, generator=generator)
    return denoiser(**arguments, return_dict=False)[0]


def add_lora(denoiser: Any, targets: list[str], *, rank: int = 3, alpha: float = 5, **settings: Any) -> None:
    """An adapter "default" whose two matrices are random."""
    denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, **settings), "default")
    generator = torch.Generator().manual_seed(4)
    for name, weight in denoiser.named_parameters():
        if ".lora_" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
