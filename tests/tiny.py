"""A real but tiny Qwen-Image-Edit-Plus pipeline with random weights: every class is the one that the 20B editor uses.

Nothing is downloaded. The tokenizer is trained on the pipeline's own prompt template, so that the template's prefix is
exactly the 64 tokens that the pipeline drops.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from editr1.data.samples import EditSample
from editr1.editors.editor import Editor

SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE_PREFIX = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n"
)
WORDS = " Picture 1: assistant remove add replace the a red green blue cat dog ball star left right bigger 0 1 2 3 4 5"
PATCH = 14
LATENT_CHANNELS = 4
PIXELS = 64 * 64


def build_tokenizer(text: str = TEMPLATE_PREFIX + WORDS) -> Qwen2Tokenizer:
    """A Qwen2 tokenizer in which every word of `text` is one token; other text falls back to its bytes."""
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([text], trainer)
    trained = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    return Qwen2Tokenizer(vocab=trained["vocab"], merges=merges, additional_special_tokens=list(SPECIAL_TOKENS))


def build_text_encoder(tokenizer: Qwen2Tokenizer, width: int = 32) -> Qwen2_5_VLForConditionalGeneration:
    """A one-layer Qwen2.5-VL that sees the source image; random weights."""
    markers = ("vision_start", "vision_end")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "depth": 1,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": 2,
        "patch_size": PATCH,
        "out_hidden_size": width,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        **{f"{marker}_token_id": tokenizer.convert_tokens_to_ids(f"<|{marker}|>") for marker in markers},
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def build_processor(tokenizer: Qwen2Tokenizer) -> Qwen2VLProcessor:
    """Image (torchvision) and text processor; an image becomes at most 16 tokens."""
    pixels = {"patch_size": PATCH, "min_pixels": (2 * PATCH) ** 2, "max_pixels": (8 * PATCH) ** 2}
    return Qwen2VLProcessor(Qwen2VLImageProcessor(**pixels), tokenizer, Qwen2VLVideoProcessor())


def build_vae() -> AutoencoderKLQwenImage:
    """A VAE with 8x compression and 4 latent channels; random weights."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.1, 0.9, 1.3, 0.7],
    ).eval()


def build_transformer(text_width: int = 32) -> QwenImageTransformer2DModel:
    """A two-block denoiser on 2x2-packed latents; random weights."""
    return QwenImageTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=text_width,
        axes_dims_rope=(4, 6, 6),
    ).eval()


def build_tiny_editor(path: Path, seed: int = 0) -> Path:
    """Save a tiny QwenImageEditPlusPipeline at `path`; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        pipe = QwenImageEditPlusPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
            vae=build_vae(),
            text_encoder=build_text_encoder(tokenizer),
            tokenizer=tokenizer,
            processor=build_processor(tokenizer),
            transformer=build_transformer(),
        )
    pipe.save_pretrained(path)
    return path


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that `build` fills once per test run; the workers of pytest-xdist share it, so tests only read it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "shared" / name
    if not folder.exists():
        part = factory.mktemp("part") / name
        build(part)
        folder.parent.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # another worker was faster
            part.rename(folder)
    return folder


def shake(editor: Editor, size: float = 0.05, seed: int = 0) -> None:
    """Add noise to the trained weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in editor.policies.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))


def tiny_sample(
    instruction: str = "remove the red ball", *, size: tuple[int, int] = (64, 64), seed: int = 0
) -> EditSample:
    """An item whose source is a smooth random picture; `size` is (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return EditSample(key=f"tiny-{seed}", source=Image.fromarray(coarse).resize(size), instruction=instruction)


def build_vision_model(folder: Path) -> None:
    """A DINOv2 of pictures of 32x32, with its processor."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    Dinov2Model(Dinov2Config(**size, image_size=32, patch_size=8)).save_pretrained(folder)
    BitImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
