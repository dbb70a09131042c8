"""Tiny pipelines of the FLUX.1, FLUX.2 and Stable Diffusion 3 layouts with random weights; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle
from diffusers.models.transformers.transformer_flux2 import Flux2Modulation
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from editr1.toy_models.flux_text import TEXT_TOKENS, init_clip, init_t5, make_clip_tokenizer, make_t5_tokenizer
from tests.tiny import WORDS, build_tokenizer

LATENT_CHANNELS = 4
PACKED = 4 * LATENT_CHANNELS  # channels of a token: 2x2 latents
WIDTH = 16
PATCH = 14
HEAD = 16
ROPE_3D = (4, 6, 6)
ROPE_4D = (4, 4, 4, 4)
GATES = (AdaLayerNormZero, AdaLayerNormZeroSingle, AdaLayerNormContinuous, Flux2Modulation)
QUERY_KEY_NORMS = ("norm_q", "norm_k", "norm_added_q", "norm_added_k")
QWEN3_LAYERS = 28  # the pipeline reads layers 9, 18 and 27
QWEN3_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL_LAYERS = 30  # the pipeline reads layers 10, 20 and 30
MISTRAL_MARKERS = ("<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
MISTRAL_IMAGE_MARKERS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
MISTRAL_TEMPLATE = (
    "<s>{% for message in messages %}{% set mark = 'SYSTEM_PROMPT' if message.role == 'system' else 'INST' %}"
    "[{{ mark }}]{% for part in message.content %}"
    "{{ part.text if part.type == 'text' else '[IMG]' }}{% endfor %}[/{{ mark }}]{% endfor %}"
)


def build_dynamic_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of FLUX: its shift grows with the number of tokens."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def open_flux_gates(transformer: nn.Module) -> None:
    """Make modulation and attention loud: in a new model gates are near zero, and every token is looked at alike."""
    for name, module in transformer.named_modules():
        if name.rpartition(".")[-1] in QUERY_KEY_NORMS:
            nn.init.constant_(module.weight, 2.0)  # at 1 the source's few tokens drown among 512 of text
        if isinstance(module, GATES):
            nn.init.normal_(module.linear.weight, std=0.3)
            if module.linear.bias is not None:
                nn.init.normal_(module.linear.bias, std=0.3)


def build_vae(*, scaling_factor: float, shift_factor: float) -> AutoencoderKL:
    """A VAE with 8x compression; the factors are those of the released latents' scale."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=LATENT_CHANNELS,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def build_flux2_vae() -> AutoencoderKLFlux2:
    """A VAE with 8x compression whose batch norm scales the 2x2-packed latents."""
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=LATENT_CHANNELS, norm_num_groups=4
    )
    vae.bn.running_mean.copy_(torch.linspace(-0.2, 0.2, PACKED))
    vae.bn.running_var.copy_(torch.linspace(0.7, 1.3, PACKED))
    return vae.eval()


def flux_parts() -> dict[str, object]:
    """The components that FLUX.1 and its Kontext share: all of them, with embedded guidance."""
    clip_tokenizer, t5_tokenizer = make_clip_tokenizer(), make_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=PACKED,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=HEAD,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=2 * WIDTH,
        guidance_embeds=True,
        axes_dims_rope=ROPE_3D,
    )
    open_flux_gates(transformer)
    return {
        "scheduler": build_dynamic_scheduler(),
        "vae": build_vae(scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": init_clip(clip_tokenizer, 2 * WIDTH).eval(),
        "tokenizer": clip_tokenizer,
        "text_encoder_2": init_t5(t5_tokenizer, 2 * WIDTH, 1).eval(),
        "tokenizer_2": t5_tokenizer,
        "transformer": transformer.eval(),
    }


def build_flux_kontext() -> FluxKontextPipeline:
    """The layout of FLUX.1 Kontext dev; for a small picture call it with `max_area` and `_auto_resize=False`."""
    return FluxKontextPipeline(**flux_parts())


def build_flux() -> FluxPipeline:
    """The layout of FLUX.1 dev, which sees no source."""
    return FluxPipeline(**flux_parts())


def build_projected_clip(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A two-layer CLIP: Stable Diffusion 3 reads the states before the last layer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=2 * WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_TOKENS,
        projection_dim=2 * WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=5.0,
    )
    clip = CLIPTextModelWithProjection(config)
    nn.init.eye_(clip.text_projection.weight)  # a random one rounds differently after a reload
    return clip.eval()


def build_sd3() -> StableDiffusion3Pipeline:
    """The layout of Stable Diffusion 3.5: both CLIPs' states stand beside each other, and T5's after them."""
    clip_tokenizers, t5_tokenizer = (make_clip_tokenizer(), make_clip_tokenizer()), make_t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=HEAD,
        num_attention_heads=2,
        joint_attention_dim=4 * WIDTH,
        caption_projection_dim=2 * HEAD,
        pooled_projection_dim=4 * WIDTH,
        out_channels=LATENT_CHANNELS,
        pos_embed_max_size=16,  # patches of a side: pictures of up to 256 px
        qk_norm="rms_norm",
    )
    open_flux_gates(transformer)
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=build_vae(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=build_projected_clip(clip_tokenizers[0]),
        tokenizer=clip_tokenizers[0],
        text_encoder_2=build_projected_clip(clip_tokenizers[1]),
        tokenizer_2=clip_tokenizers[1],
        text_encoder_3=init_t5(t5_tokenizer, 4 * WIDTH, 1).eval(),
        tokenizer_3=t5_tokenizer,
    )


def build_flux2_transformer(*, guidance_embeds: bool) -> Flux2Transformer2DModel:
    """One double and one single block; a text token is three layers' states of a text encoder."""
    transformer = Flux2Transformer2DModel(
        in_channels=PACKED,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=HEAD,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=2 * WIDTH,
        axes_dims_rope=ROPE_4D,
        guidance_embeds=guidance_embeds,
    )
    open_flux_gates(transformer)
    return transformer.eval()


def build_qwen3(tokenizer: Qwen2Tokenizer) -> Qwen3ForCausalLM:
    """A thin Qwen3 that is as deep as the pipeline reads."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=QWEN3_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return Qwen3ForCausalLM(config).eval()


def klein_parts() -> dict[str, object]:
    """The components that the FLUX.2 klein pipelines share: all of them, without embedded guidance."""
    tokenizer = build_tokenizer("user\n assistant\n<think>\n\n</think>\n\n" + WORDS)
    tokenizer.chat_template = QWEN3_TEMPLATE
    return {
        "scheduler": build_dynamic_scheduler(),
        "vae": build_flux2_vae(),
        "text_encoder": build_qwen3(tokenizer),
        "tokenizer": tokenizer,
        "transformer": build_flux2_transformer(guidance_embeds=False),
    }


def build_flux2_klein() -> Flux2KleinPipeline:
    """The layout of FLUX.2 klein base, which is not distilled and so can be guided."""
    return Flux2KleinPipeline(**klein_parts(), is_distilled=False)


def build_flux2_klein_kv() -> Flux2KleinKVPipeline:
    """The layout of FLUX.2 klein KV: the source's keys and values are computed in the first step alone."""
    return Flux2KleinKVPipeline(**klein_parts())


def build_pixtral_processor() -> PixtralProcessor:
    """Image and text processor with the marker tokens' names of Mistral Small 3."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(SYSTEM_MESSAGE + WORDS).backend_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=[*MISTRAL_MARKERS[3:], *MISTRAL_IMAGE_MARKERS],
    )
    size = {"patch_size": {"height": PATCH, "width": PATCH}, "size": {"longest_edge": 8 * PATCH}}
    return PixtralProcessor(
        PixtralImageProcessor(**size),
        tokenizer,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=MISTRAL_TEMPLATE,
    )


def build_mistral3(tokenizer: PreTrainedTokenizerFast) -> Mistral3ForConditionalGeneration:
    """A thin Mistral 3 that is as deep as the pipeline reads; its eyes serve the rewriting of prompts alone."""
    text = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": MISTRAL_LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": None,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8 * PATCH,
        "patch_size": PATCH,
    }
    config = Mistral3Config(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        tie_word_embeddings=True,
    )
    return Mistral3ForConditionalGeneration(config).eval()


def build_flux2() -> Flux2Pipeline:
    """The layout of FLUX.2 dev, with embedded guidance."""
    processor = build_pixtral_processor()
    return Flux2Pipeline(
        scheduler=build_dynamic_scheduler(),
        vae=build_flux2_vae(),
        text_encoder=build_mistral3(processor.tokenizer),
        tokenizer=processor,
        transformer=build_flux2_transformer(guidance_embeds=True),
    )


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "FluxKontextPipeline": build_flux_kontext,
    "FluxPipeline": build_flux,
    "Flux2KleinPipeline": build_flux2_klein,
    "StableDiffusion3Pipeline": build_sd3,
    "Flux2Pipeline": build_flux2,
    "Flux2KleinKVPipeline": build_flux2_klein_kv,
}
