"""The toy editor in the FLUX.1 Kontext layout: T5 states as text tokens, a pooled CLIP state, embedded guidance.

Letters: B batch, N = 16 tokens of a 64x64 picture, C = 64 channels of a token, L = TEXT_TOKENS.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from editr1.toy_models.flux_text import TEXT_TOKENS, init_clip, init_t5, make_clip_tokenizer, make_t5_tokenizer

TRAINED = ("transformer", "text_encoder", "text_encoder_2")
GUIDANCE = (1.0, 5.0)  # drawn at random in training: the toy works the same at any value


def init_pipeline(vae: AutoencoderKL) -> FluxKontextPipeline:
    """An untrained pipeline around a trained VAE."""
    clip_tokenizer, t5_tokenizer = make_clip_tokenizer(), make_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=3,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=160,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    for block in transformer.transformer_blocks:  # start as identity blocks
        nn.init.zeros_(block.norm1.linear.weight)
        nn.init.zeros_(block.norm1_context.linear.weight)
    for block in transformer.single_transformer_blocks:
        nn.init.zeros_(block.norm.linear.weight)
    nn.init.zeros_(transformer.norm_out.linear.weight)
    nn.init.zeros_(transformer.proj_out.weight)
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=init_clip(clip_tokenizer, 64),
        tokenizer=clip_tokenizer,
        text_encoder_2=init_t5(t5_tokenizer, 160, 2),
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )


def encode_words(pipe: FluxKontextPipeline, words: list[str]) -> tuple[Tensor, Tensor]:
    """Text states [B, L, C] and the pooled state [B, C], with gradients, as the pipeline makes them."""
    padded = {"padding": "max_length", "max_length": TEXT_TOKENS, "truncation": True, "return_tensors": "pt"}
    states = pipe.text_encoder_2(pipe.tokenizer_2(words, **padded).input_ids).last_hidden_state
    pooled = pipe.text_encoder(pipe.tokenizer(words, **padded).input_ids).pooler_output
    return states, pooled


def velocity(
    pipe: FluxKontextPipeline, x_t: Tensor, t: Tensor, source: Tensor, words: list[str], pixels: list[Tensor]
) -> Tensor:
    """V [B, N, C] of noised targets `x_t` [B, N, C] beside their sources [B, N, C]; `pixels` are not looked at."""
    states, pooled = encode_words(pipe, words)
    low, high = GUIDANCE
    places = pipe._prepare_latent_image_ids(1, 4, 4, x_t.device, x_t.dtype)  # [N, 3]
    beside = places + torch.tensor([1, 0, 0])  # the source is image 1
    v: Tensor = pipe.transformer(
        hidden_states=torch.cat([x_t, source], dim=1),
        timestep=t,
        guidance=low + (high - low) * torch.rand(len(x_t)),
        pooled_projections=pooled,
        encoder_hidden_states=states,
        txt_ids=torch.zeros(states.shape[1], 3),
        img_ids=torch.cat([places, beside]),
        return_dict=False,
    )[0][:, : x_t.shape[1]]
    return v
