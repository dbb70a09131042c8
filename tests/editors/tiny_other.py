"""Tiny pipelines of the Z-Image-Omni, OmniGen and DreamLite layouts with random weights; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DiffusionPipeline,
    DreamLiteMobilePipeline,
    DreamLitePipeline,
    DreamLiteUNetModel,
    FlowMatchEulerDiscreteScheduler,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
    ZImageOmniPipeline,
    ZImageTransformer2DModel,
)
from torch import nn
from transformers import (
    LlamaTokenizer,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    Siglip2ImageProcessor,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)

from tests.tiny import build_tokenizer

WIDTH = 32
LATENT_CHANNELS = 4
PATCH = 16
SPREAD = 0.1  # of the random text states; transformers' 0.02 lets an instruction hardly be heard


def build_vae(**settings: float) -> AutoencoderKL:
    """A VAE with 8x compression; `settings` are those of the released latents' scale."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=LATENT_CHANNELS,
        **settings,
    ).eval()


def build_qwen3(tokenizer: Qwen2Tokenizer) -> Qwen3Model:
    """A Qwen3 of two layers: the pipeline reads the states before the last one."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=SPREAD,
    )
    return Qwen3Model(config).eval()


def build_siglip() -> Siglip2VisionModel:
    """A one-layer SigLIP 2 for pictures of any shape."""
    config = Siglip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        patch_size=PATCH,
        num_patches=16,
        vision_use_head=False,
    )
    return Siglip2VisionModel(config).eval()


def build_z_image_transformer() -> ZImageTransformer2DModel:
    """Two blocks and one refiner for each kind of token; it sees the source twice, as latents and as SigLIP states."""
    transformer = ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=WIDTH,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        siglip_feat_dim=WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token, transformer.siglip_pad_token):
        nn.init.normal_(token, std=0.02)  # zero in a new model
    return transformer.eval()


def build_z_image_omni() -> ZImageOmniPipeline:
    """The layout of Z-Image-Omni; it encodes the source in bfloat16, whatever the dtype of its VAE."""
    tokenizer = build_tokenizer()
    return ZImageOmniPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=build_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=build_qwen3(tokenizer),
        tokenizer=tokenizer,
        transformer=build_z_image_transformer(),
        siglip=build_siglip(),
        siglip_processor=Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=16),
    )


def build_llama_tokenizer() -> LlamaTokenizer:
    """A Llama tokenizer whose tokens are characters."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces = [*special, *(chr(code) for code in range(33, 127))]
    return LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])


def open_omnigen(transformer: OmniGenTransformer2DModel) -> None:
    """Make source and time loud: a new model hardly hears them beside some hundred tokens of text."""
    nn.init.normal_(transformer.patch_embedding.input_image_proj.weight, std=1.0)
    for layer in (transformer.time_token.linear_2, transformer.t_embedder.linear_2, transformer.norm_out.linear):
        nn.init.normal_(layer.weight, std=0.3)
    for block in transformer.layers:
        for layer in (block.self_attn.to_q, block.self_attn.to_k, block.self_attn.to_v):
            nn.init.normal_(layer.weight, std=0.4)


def build_omnigen() -> OmniGenPipeline:
    """The layout of OmniGen: one transformer reads text, source and noise; the scheduler's time runs upwards."""
    tokenizer = build_llama_tokenizer()
    head = 16
    transformer = OmniGenTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        hidden_size=WIDTH,
        num_attention_heads=WIDTH // head,
        num_key_value_heads=WIDTH // head,
        intermediate_size=2 * WIDTH,
        num_layers=2,
        pad_token_id=2,
        vocab_size=len(tokenizer),
        rope_scaling={"short_factor": [1.0] * (head // 2), "long_factor": [1.5] * (head // 2)},
        pos_embed_max_size=32,
        time_step_dim=32,
    )
    open_omnigen(transformer)
    return OmniGenPipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1),
        vae=build_vae(scaling_factor=0.13025),
        tokenizer=tokenizer,
    )


def build_qwen3_vl(tokenizer: Qwen2Tokenizer) -> Qwen3VLForConditionalGeneration:
    """A one-layer Qwen3-VL that sees the source image."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": SPREAD,
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
        "initializer_range": SPREAD,
    }
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    marks = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **marks)
    return Qwen3VLForConditionalGeneration(config).eval()


def build_qwen3_vl_processor(tokenizer: Qwen2Tokenizer) -> Qwen3VLProcessor:
    """Image and text processor; an image becomes at most 16 tokens."""
    images = Qwen2VLImageProcessor(patch_size=PATCH, min_pixels=(2 * PATCH) ** 2, max_pixels=(8 * PATCH) ** 2)
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(patch_size=PATCH))


def build_dreamlite_unet() -> DreamLiteUNetModel:
    """A flow-matching U-Net of three resolutions, the lower two with attention; source and noise lie side by side."""
    return DreamLiteUNetModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        attention_head_dim=(1, 2, 2),
        use_linear_projection=True,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj_rms",
        addition_embed_type="time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16,
        ff_mult=2,
    ).eval()


def _build_dreamlite(pipeline: Callable[..., DiffusionPipeline]) -> DiffusionPipeline:
    tokenizer = build_tokenizer()  # the pipeline drops the 64 tokens of the same template
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8))
    return pipeline(
        text_encoder=build_qwen3_vl(tokenizer),
        tokenizer=tokenizer,
        processor=build_qwen3_vl_processor(tokenizer),
        vae=vae.eval(),
        unet=build_dreamlite_unet(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=1.16),
    )


def build_dreamlite() -> DiffusionPipeline:
    """The layout of DreamLite: guidance by text and by source is always on."""
    return _build_dreamlite(DreamLitePipeline)


def build_dreamlite_mobile() -> DiffusionPipeline:
    """The layout of DreamLite Mobile: the same without guidance."""
    return _build_dreamlite(DreamLiteMobilePipeline)


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "ZImageOmniPipeline": build_z_image_omni,
    "OmniGenPipeline": build_omnigen,
    "DreamLitePipeline": build_dreamlite,
    "DreamLiteMobilePipeline": build_dreamlite_mobile,
}
