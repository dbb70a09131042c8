"""The toy editor in the Qwen-Image-Edit-2509 layout: the text encoder sees the source too, latents have a frame axis.

Letters: B batch, N = 16 tokens of a 64x64 picture, C = 64 channels of a token, L text tokens.
"""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from torch import Tensor, nn

from editr1.toy_models.language import VLSize, edit_prompt, init_qwen_vl, load_tokenizer, make_processor

# The text encoder sees a scene as 2x2 tokens, one per cell.
TEXT_ENCODER = VLSize(layers=2, patch=16, vision_layers=1, theta=10000.0, sections=(8, 4, 4))
TRAINED = ("transformer", "text_encoder")


def init_pipeline(vae: AutoencoderKLQwenImage) -> QwenImageEditPlusPipeline:
    """An untrained pipeline around a trained VAE."""
    tokenizer = load_tokenizer()
    text_encoder = init_qwen_vl(tokenizer, TEXT_ENCODER)
    transformer = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=5,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=160,
        axes_dims_rope=(8, 12, 12),
    )
    for block in transformer.transformer_blocks:  # start as identity blocks
        nn.init.zeros_(block.img_mod[1].weight)
        nn.init.zeros_(block.txt_mod[1].weight)
    nn.init.zeros_(transformer.norm_out.linear.weight)
    nn.init.zeros_(transformer.proj_out.weight)
    return QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        processor=make_processor(tokenizer, TEXT_ENCODER.patch),
        transformer=transformer,
    )


def encode_words(pipe: QwenImageEditPlusPipeline, words: list[str], pixels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Text embeddings [B, L, C] and their mask [B, L], with gradients, as the pipeline makes them one by one."""
    prompts = [edit_prompt(instruction) for instruction in words]
    inputs = pipe.processor(text=prompts, images=pixels, padding=True, padding_side="right", return_tensors="pt")
    passed = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")  # what the pipeline passes, no more
    hidden = pipe.text_encoder.model(**{name: inputs[name] for name in passed}).last_hidden_state
    drop = pipe.prompt_template_encode_start_idx
    return hidden[:, drop:], inputs["attention_mask"][:, drop:]


def velocity(
    pipe: QwenImageEditPlusPipeline, x_t: Tensor, t: Tensor, source: Tensor, words: list[str], pixels: list[Tensor]
) -> Tensor:
    """V [B, N, C] of noised targets `x_t` [B, N, C] beside their sources [B, N, C]."""
    states, mask = encode_words(pipe, words, pixels)
    v: Tensor = pipe.transformer(
        hidden_states=torch.cat([x_t, source], dim=1),
        timestep=t,
        encoder_hidden_states=states,
        encoder_hidden_states_mask=mask,
        img_shapes=[[(1, 4, 4), (1, 4, 4)]] * len(x_t),
        return_dict=False,
    )[0][:, : x_t.shape[1]]
    return v
