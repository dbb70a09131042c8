"""Tiny pipelines of the FIBO edit and FIBO 2 layouts with random weights; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

from diffusers import (
    AutoencoderKLWan,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    BriaFiboEditPipeline,
    BriaFiboTransformer2DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.bria_fibo2.pipeline_bria_fibo2 import DEFAULT_NEGATIVE_PROMPT, PROMPT_TEMPLATE
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from tests.editors.tiny_bfl import LATENT_CHANNELS, WIDTH, build_dynamic_scheduler, build_flux2_vae, open_flux_gates
from tests.tiny import WORDS, build_tokenizer

PATCH = 16
FIBO_VOCABULARY = 128_256  # the pipeline's empty prompt is token 128000, typed in there
FIBO_LATENTS = 8
EDIT_JSON = '{"edit_instruction": "'


def build_fibo_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens' names of SmolLM3's."""
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(EDIT_JSON + WORDS).backend_tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )


def build_smollm3(tokenizer: PreTrainedTokenizerFast) -> SmolLM3ForCausalLM:
    """A two-layer SmolLM3; its vocabulary has the released size, for the empty prompt's token."""
    config = SmolLM3Config(
        vocab_size=FIBO_VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return SmolLM3ForCausalLM(config).eval()


def build_wan_vae() -> AutoencoderKLWan:
    """The VAE layout of Wan 2.2: 16x compression by 2x2 patches and residual blocks."""
    return AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=FIBO_LATENTS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1] * FIBO_LATENTS,
        latents_std=[0.9] * FIBO_LATENTS,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=16,
    ).eval()


def build_fibo_edit() -> BriaFiboEditPipeline:
    """The layout of FIBO edit: the prompt is JSON, and every block reads its own text encoder layer."""
    tokenizer = build_fibo_tokenizer()
    transformer = BriaFiboTransformer2DModel(
        patch_size=1,
        in_channels=FIBO_LATENTS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        text_encoder_dim=WIDTH,
        axes_dims_rope=[4, 6, 6],
    )
    open_flux_gates(transformer)
    return BriaFiboEditPipeline(
        transformer=transformer.eval(),
        scheduler=build_dynamic_scheduler(),
        vae=build_wan_vae(),
        text_encoder=build_smollm3(tokenizer),
        tokenizer=tokenizer,
    )


def build_qwen3_vl(tokenizer: Qwen2Tokenizer, layers: int = 36) -> Qwen3VLForConditionalGeneration:
    """A thin Qwen3-VL; the pipeline reads layers up to number 35."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_heads": 2,
        "patch_size": PATCH,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.2,
    }
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {f"{name}_token_id": name for name in ("vision_start", "vision_end")}
    marks = {name: tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **marks)
    return Qwen3VLForConditionalGeneration(config).eval()


def build_qwen3_vl_processor(tokenizer: Qwen2Tokenizer) -> Qwen3VLProcessor:
    """Image and text processor; an image becomes at most 16 tokens."""
    half = [0.5, 0.5, 0.5]
    images = Qwen2VLImageProcessor(
        patch_size=PATCH, min_pixels=(2 * PATCH) ** 2, max_pixels=(8 * PATCH) ** 2, image_mean=half, image_std=half
    )
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(patch_size=PATCH))


def build_fibo2_transformer(text_width: int) -> BriaFibo2Transformer2DModel:
    """One refining block and two main ones, each with text injected; the gates of the injections stand open."""
    transformer = BriaFibo2Transformer2DModel(
        in_channels=LATENT_CHANNELS,
        patch_size=2,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        cap_feat_dim=text_width,
        injection_layer_ids=(0, 1),
        perceiver_num_layers=1,
        min_num_gist_tokens=4,
        max_num_gist_tokens=16,
        gist_step=4,
        gist_min_text_len=8,
        gist_max_text_len=128,
        axes_dims=(4, 6, 6),
        axes_lens=(32, 128, 128),
    )
    for block in transformer.layers:
        nn.init.constant_(block.cross_attn_gate, 0.5)  # zero in a new model
    return transformer.eval()


def build_fibo2() -> BriaFibo2Pipeline:
    """The layout of FIBO 2: latents stay pictures, the source's are an argument of their own."""
    tokenizer = build_tokenizer(PROMPT_TEMPLATE + EDIT_JSON + DEFAULT_NEGATIVE_PROMPT + WORDS)
    return BriaFibo2Pipeline(
        transformer=build_fibo2_transformer(3 * WIDTH),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=build_flux2_vae(),
        text_encoder=build_qwen3_vl(tokenizer),
        processor=build_qwen3_vl_processor(tokenizer),
    )


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "BriaFiboEditPipeline": build_fibo_edit,
    "BriaFibo2Pipeline": build_fibo2,
}
