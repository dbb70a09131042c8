"""Real but tiny pipelines that read instruction and source with a Qwen-VL; every class is the released editor's.

Weights are random (the caller seeds), tokenizers and processors are made on the spot, nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable

from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage21,
    AutoencoderKLWan,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    JoyImageEditPipeline,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
    Kandinsky5I2IPipeline,
    Kandinsky5Transformer3DModel,
    LongCatImageEditPipeline,
    LongCatImageTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from editr1.toy_models.flux_text import make_clip_tokenizer
from tests.tiny import (
    TEMPLATE_PREFIX,
    WORDS,
    build_processor,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
)

# Words of the prompt templates; with one token each, the templates' heads have the lengths that the pipelines cut off.
TEMPLATE_WORDS = (
    "all altered an analyze and are As aspects assistant attributes Based based be by can clearly color Comprehend "
    "consistent content create Describe detailing determine editing engineer ensuring expert first given image "
    "instructions interesting on only other parts precisely prompt provided quantity relationships remain second "
    "source spatial specified system target Then to together used user You"
)
QWEN3_PATCH = 16
# As in the released processors, every turn is wrapped in markers; the pipeline asks for a system turn alone.
CHAT_TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{% for part in turn.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Knows the words of every prompt template of this file."""
    words = f"{WORDS} {TEMPLATE_WORDS}"
    bare = "\n".join(words.split())  # without the space that is else a part of a word's token
    return build_tokenizer(f"{TEMPLATE_PREFIX} {words}\n{bare}")


def qwen_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The flags of Qwen-Image and its editors."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )


def build_qwen3_vl(tokenizer: Qwen2Tokenizer, width: int = 32) -> Qwen3VLForConditionalGeneration:
    """A one-layer Qwen3-VL whose vision tower feeds that layer a second time ("deepstack")."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "depth": 2,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": 2,
        "patch_size": QWEN3_PATCH,
        "out_hidden_size": width,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    markers = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    ids = {name: tokenizer.convert_tokens_to_ids(marker) for name, marker in markers.items()}
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids)).eval()
    # The pipelines take states that no norm has seen: of the usual size they would hardly depend on the words.
    nn.init.normal_(model.get_input_embeddings().weight, std=1.0)
    return model


def build_qwen3_processor(tokenizer: Qwen2Tokenizer) -> Qwen3VLProcessor:
    """One token for every 32x32 pixels; no picture of a test is enlarged or shrunk."""
    pixels = {"patch_size": QWEN3_PATCH, "min_pixels": (2 * QWEN3_PATCH) ** 2, "max_pixels": (32 * QWEN3_PATCH) ** 2}
    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(**pixels),
        tokenizer,
        Qwen3VLVideoProcessor(patch_size=QWEN3_PATCH),
        chat_template=CHAT_TEMPLATE,
    )


def build_image_vae(channels: int, shift: float | None) -> AutoencoderKL:
    """FLUX's VAE with 8x compression; `shift` None where the pipeline only scales."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        latent_channels=channels,
        scaling_factor=0.3611,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def build_qwen_image() -> QwenImagePipeline:
    """Text to image; no source."""
    tokenizer = qwen_tokenizer()
    return QwenImagePipeline(
        scheduler=qwen_scheduler(),
        vae=build_vae(),
        text_encoder=build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=build_transformer(),
    )


def _build_qwen_edit(pipeline: Callable[..., DiffusionPipeline]) -> DiffusionPipeline:
    tokenizer = qwen_tokenizer()
    return pipeline(
        scheduler=qwen_scheduler(),
        vae=build_vae(),
        text_encoder=build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        processor=build_processor(tokenizer),
        transformer=build_transformer(),
    )


def build_qwen_image_edit() -> DiffusionPipeline:
    """Qwen-Image-Edit: one source, which text encoder and VAE see in the same size."""
    return _build_qwen_edit(QwenImageEditPipeline)


def build_qwen_image_edit_plus() -> DiffusionPipeline:
    """Qwen-Image-Edit-2509 and later: several sources."""
    return _build_qwen_edit(QwenImageEditPlusPipeline)


def build_qwen_image_21() -> QwenImage21Pipeline:
    """Qwen-Image 2.1: sources stand before the target, in RGBA; a cache of keys and values after the first step."""
    tokenizer, channels = qwen_tokenizer(), 8
    vae = AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=channels,
        dim_mult=[1] * 5,
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0] * 2,
        latents_std=[1.1, 0.9, 1.3, 0.7] * 2,
    )
    transformer = QwenImage21Transformer2DModel(
        in_channels=channels,
        out_channels=channels,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    return QwenImage21Pipeline(
        scheduler=qwen_scheduler(),
        vae=vae.eval(),
        text_encoder=build_qwen3_vl(tokenizer),
        processor=build_qwen3_processor(tokenizer),
        transformer=transformer.eval(),
    )


def build_longcat_image_edit() -> LongCatImageEditPipeline:
    """LongCat-Image-Edit: FLUX's denoiser and VAE with a Qwen2.5-VL; 16 latent channels are fixed in its code."""
    tokenizer = qwen_tokenizer()
    transformer = LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 6, 6],
    )
    return LongCatImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=build_image_vae(16, shift=0.1159),
        text_encoder=build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        text_processor=build_processor(tokenizer),
        transformer=transformer.eval(),
    )


def _build_joy(pipeline: Callable[..., DiffusionPipeline], denoiser: Callable[..., nn.Module]) -> DiffusionPipeline:
    tokenizer, channels = qwen_tokenizer(), 4
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=channels,
        dim_mult=[1] * 4,
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.1, 0.9, 1.3, 0.7],
    )
    transformer = denoiser(
        in_channels=channels,
        hidden_size=32,
        num_attention_heads=2,
        text_dim=32,
        num_layers=2,
        rope_dim_list=[4, 6, 6],
    )
    return pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=4.0),
        vae=vae.eval(),
        text_encoder=build_qwen3_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
        processor=build_qwen3_processor(tokenizer),
    )


def build_joy_image_edit() -> DiffusionPipeline:
    """JoyImage-Edit: source and target are two items of a video-like latent."""
    return _build_joy(JoyImageEditPipeline, JoyImageEditTransformer3DModel)


def build_joy_image_edit_plus() -> DiffusionPipeline:
    """JoyImage-Edit-Plus: lists of patches, target first, then any number of sources."""
    return _build_joy(JoyImageEditPlusPipeline, JoyImageEditPlusTransformer3DModel)


def _build_clip(tokenizer: CLIPTokenizer, width: int = 32) -> CLIPTextModel:
    """With the 77 positions that the pipeline pads to."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def build_kandinsky5_i2i() -> Kandinsky5I2IPipeline:
    """Kandinsky 5 image to image: the source stands in further channels of the latent."""
    tokenizer, clip_tokenizer, channels = qwen_tokenizer(), make_clip_tokenizer(), 4
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=channels,
        out_visual_dim=channels,
        in_text_dim=32,
        in_text_dim2=32,
        time_dim=32,
        model_dim=32,
        ff_dim=64,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
        visual_cond=True,
    )
    # All modulations, and with them all gates, start as zero: text and time would not matter.
    for name, module in transformer.named_modules():
        if name.endswith("modulation.out_layer"):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return Kandinsky5I2IPipeline(
        transformer=transformer.eval(),
        vae=build_image_vae(channels, shift=0.1159),
        text_encoder=build_text_encoder(tokenizer),
        tokenizer=build_processor(tokenizer),
        text_encoder_2=_build_clip(clip_tokenizer),
        tokenizer_2=clip_tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "QwenImagePipeline": build_qwen_image,
    "QwenImageEditPipeline": build_qwen_image_edit,
    "QwenImageEditPlusPipeline": build_qwen_image_edit_plus,
    "QwenImage21Pipeline": build_qwen_image_21,
    "LongCatImageEditPipeline": build_longcat_image_edit,
    "JoyImageEditPipeline": build_joy_image_edit,
    "JoyImageEditPlusPipeline": build_joy_image_edit_plus,
    "Kandinsky5I2IPipeline": build_kandinsky5_i2i,
}
