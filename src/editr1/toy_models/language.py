"""The toy's tokenizer and processors: a Qwen2 tokenizer in which every word of the toy's language is one token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diffusers import QwenImageEditPlusPipeline
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention, apply_rotary_pos_emb_vision

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
WIDTH, VISION_WIDTH = 160, 96  # channels of the language model and of the vision model, if a size says no other
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    f"{PICTURE}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def edit_prompt(instruction: str) -> str:
    """The text that QwenImageEditPlusPipeline encodes for one source image and an instruction."""
    return editor_template().format(f"Picture 1: {PICTURE}{instruction}")


@lru_cache(maxsize=1)
def editor_template() -> str:
    """The pipeline's own prompt template, read from the class rather than repeated here."""
    return str(QwenImageEditPlusPipeline(None, None, None, None, None, None).prompt_template_encode)


def load_tokenizer() -> Qwen2Tokenizer:
    """The toy's tokenizer, from scripts/train_tokenizer.py.

    Its vocabulary is frozen, since the weights of every toy model depend on its order.
    """
    return Qwen2Tokenizer.from_pretrained(Path(__file__).parent / "tokenizer")


def make_processor(tokenizer: Qwen2Tokenizer, patch: int) -> Qwen2VLProcessor:
    """Image and text processor; a 64x64 picture becomes (64 / patch / 2)^2 tokens."""
    images = Qwen2VLImageProcessor(patch_size=patch, min_pixels=64 * 64, max_pixels=64 * 64)
    return Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


@dataclass(frozen=True)
class VLSize:
    """Size of a Qwen2.5-VL.

    Pictures of 4x4 tokens need a small `theta` and few turns for time, or the model cannot tell a token's place.

    Attributes:
        layers: Layers of the language model.
        patch: Side of a patch of a picture, pixels; a token is 2x2 of them.
        vision_layers: Layers of the vision model.
        theta: Base of the rotary positions.
        sections: Their turns for time, height and width.
        width: Channels of the language model, a multiple of 32: its heads have 32.
        vision_width: Channels of the vision model, a multiple of 32 too.
    """

    layers: int
    patch: int
    vision_layers: int
    theta: float
    sections: tuple[int, int, int]
    width: int = WIDTH
    vision_width: int = VISION_WIDTH


def init_qwen_vl(tokenizer: Qwen2Tokenizer, size: VLSize) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained Qwen2.5-VL; word embeddings tied."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": 2 * size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // 32,
        "num_key_value_heads": size.width // 32,
        "rope_parameters": {"rope_type": "default", "rope_theta": size.theta, "mrope_section": [*size.sections]},
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_width,
        "intermediate_size": 2 * size.vision_width,
        "num_heads": size.vision_width // 32,
        "patch_size": size.patch,
        "out_hidden_size": size.width,
        "fullatt_block_indexes": list(range(size.vision_layers)),
    }
    names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    return Qwen2_5_VLForConditionalGeneration(config)


def use_equal_pictures(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Training only: all pictures have one size, so the vision attention runs once per batch, not once per picture."""

    def forward(
        self: Qwen2_5_VLVisionAttention,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **_: object,
    ) -> Tensor:
        pictures = len(cu_seqlens) - 1
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (x.to(v.dtype).unflatten(0, (pictures, -1)).transpose(1, 2) for x in (q, k, v))
        weights = (q @ k.transpose(-1, -2) * self.scaling).softmax(-1).to(v.dtype)
        return self.proj((weights @ v).transpose(1, 2).reshape(len(hidden_states), -1))

    for module in model.modules():
        if isinstance(module, Qwen2_5_VLVisionAttention):
            module.forward = forward.__get__(module)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
