"""The family records: one for each pipeline class that editr1 knows.

The LoRA targets are the attention projections, as in Edit-R1 (arXiv 2510.16888). `guidance` is that of
training: classifier-free guidance is off (one denoiser call per step, as in DiffusionNFT, arXiv 2509.16117). Edits
outside of training take the pipeline's own default.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import prod
from typing import Any

from editr1.editors.family import Family

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINT_ATTENTION = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
JOY_ATTENTION = ("img_attn_qkv", "img_attn_proj", "txt_attn_qkv", "txt_attn_proj")
QWEN_USER, QWEN_ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
QWEN_ARGS = ("encoder_hidden_states", "encoder_hidden_states_mask", "guidance")

QWEN_IMAGE_EDIT = Family(
    name="qwen-image-edit",
    pipeline="QwenImageEditPipeline",
    negative=" ",
    guidance_arg="true_cfg_scale",
    guidance=1.0,
    multiple=32,
    area_functions=("calculate_dimensions",),
    batch_args=QWEN_ARGS,
    lora_targets=JOINT_ATTENTION,
)

QWEN_IMAGE_EDIT_PLUS = replace(
    QWEN_IMAGE_EDIT,
    name="qwen-image-edit-plus",
    pipeline="QwenImageEditPlusPipeline",
    sources=None,
    area_functions=(),
    source_areas=("VAE_IMAGE_SIZE",),
    preview_areas=("CONDITION_IMAGE_SIZE",),
)

QWEN_IMAGE_21 = replace(
    QWEN_IMAGE_EDIT,
    name="qwen-image-2.1",
    pipeline="QwenImage21Pipeline",
    sources=None,
    settings={"use_kv_cache": False},
    text_tokens=None,
    target="last",
    batch_args=("encoder_hidden_states", "encoder_hidden_states_mask"),
    lora_targets=ATTENTION,
)

FLUX_KONTEXT = Family(
    name="flux-kontext",
    pipeline="FluxKontextPipeline",
    guidance_arg="guidance_scale",
    guidance=2.5,
    text_limit=512,
    tokenizer="tokenizer_2",
    sized=lambda size: {"_auto_resize": False, "max_area": prod(size)},
    source_shape=True,
    fitted=True,
    batch_args=("encoder_hidden_states", "pooled_projections", "guidance"),
    lora_targets=JOINT_ATTENTION,
)


def _flux2_texts(text: str) -> list[str]:
    """FLUX.2 puts a message of the system before the prompt."""
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE  # the records are read without diffusers

    return [f"[SYSTEM_PROMPT]{SYSTEM_MESSAGE}[/SYSTEM_PROMPT][INST]{text}[/INST]"]


FLUX2 = Family(
    name="flux2",
    pipeline="Flux2Pipeline",
    sources=None,
    guidance_arg="guidance_scale",
    guidance=4.0,
    text_limit=512,
    tokenized=_flux2_texts,
    fitted=True,
    batch_args=("encoder_hidden_states", "txt_ids", "img_ids", "guidance"),
    lora_targets=(*JOINT_ATTENTION, "to_qkv_mlp_proj"),
)

FLUX2_KLEIN = replace(
    FLUX2,
    name="flux2-klein",
    pipeline="Flux2KleinPipeline",
    guidance=1.0,
    tokenized=lambda text: (f"{QWEN_USER}{text}{QWEN_ASSISTANT}<think>\n\n</think>\n\n",),
    batch_args=("encoder_hidden_states", "txt_ids", "img_ids"),
)

FLUX2_KLEIN_KV = replace(
    FLUX2_KLEIN,
    name="flux2-klein-kv",
    pipeline="Flux2KleinKVPipeline",
    guidance_arg=None,
    guidance=None,
    target="last",
)


def _longcat_pieces(text: str) -> list[str]:
    """LongCat tokenizes each letter in quotes on its own."""
    without_apostrophes = re.sub(r"(?<=[a-zA-Z])'(?=[a-zA-Z])", "`", text)
    parts = re.split("""('[^']*'|"[^"]*"|‘[^‘’]*’|“[^“”]*”)""", without_apostrophes)
    return [piece for i, part in enumerate(parts) for piece in (part if i % 2 else [part]) if piece]


LONGCAT_IMAGE_EDIT = Family(
    name="longcat-image-edit",
    pipeline="LongCatImageEditPipeline",
    guidance_arg="guidance_scale",
    guidance=1.0,
    takes_size=False,
    text_tokens=None,
    text_limit=512,
    tokenized=_longcat_pieces,
    area_functions=("calculate_dimensions",),
    batch_args=("encoder_hidden_states",),
    lora_targets=JOINT_ATTENTION,
)

BRIA_FIBO_EDIT = Family(
    name="bria-fibo-edit",
    pipeline="BriaFiboEditPipeline",
    sources=None,
    prompt=lambda text: json.dumps({"edit_instruction": text}),
    guidance_arg="guidance_scale",
    guidance=1.0,
    text_limit=3000,
    sized=lambda size: {"_auto_resize": False},
    fitted=True,
    time_scale=1000.0,
    batch_args=("encoder_hidden_states", "text_encoder_layers", "joint_attention_kwargs"),
    conditional="last",
    lora_targets=JOINT_ATTENTION,
)

BRIA_FIBO_2 = Family(
    name="bria-fibo-2",
    pipeline="BriaFibo2Pipeline",
    sources=5,
    guidance_arg="guidance_scale",
    guidance=1.0,
    text_tokens=None,
    fitted=True,
    scoped=lambda size: {"default_sample_size": round(prod(size) ** 0.5 / 8)},
    batch_args=("encoder_hidden_states", "encoder_attention_mask", "context_latents"),
    lora_targets=ATTENTION,
)

JOYIMAGE_EDIT = Family(
    name="joyimage-edit",
    pipeline="JoyImageEditPipeline",
    guidance_arg="guidance_scale",
    guidance=1.0,
    text_limit=4096,
    tokenized=lambda text: (f"{text}{QWEN_ASSISTANT}",),
    scoped=lambda size: {"diffusers.pipelines.joyimage.image_processor:BUCKETS": {1024: [size[::-1]]}},
    mean_source=True,
    time_scale=1000.0,
    target="last",
    length=1,
    batch_args=("encoder_hidden_states",),
    lora_targets=JOY_ATTENTION,
)

JOYIMAGE_EDIT_PLUS = Family(
    name="joyimage-edit-plus",
    pipeline="JoyImageEditPlusPipeline",
    image="images",
    sources=None,
    listed=True,
    repeats=False,
    guidance_arg="guidance_scale",
    guidance=1.0,
    text_limit=4096,
    tokenized=lambda text: (f"{text}{QWEN_ASSISTANT}",),
    scoped=lambda size: {"diffusers.pipelines.joyimage.image_processor:BUCKETS": {1024: [size[::-1]]}},
    time_scale=1000.0,
    length=lambda arguments: prod(arguments["shape_list"][0][0]),
    batch_args=("encoder_hidden_states", "encoder_hidden_states_mask"),
    list_args=("shape_list",),
    conditional="last",
    lora_targets=JOY_ATTENTION,
)

KANDINSKY5_I2I = Family(
    name="kandinsky5-i2i",
    pipeline="Kandinsky5I2IPipeline",
    repeats=False,
    negative="blurry, low quality, distorted, deformed, artifacts",  # an empty one has no tokens
    guidance_arg="guidance_scale",
    guidance=1.0,
    text_tokens=None,
    text_limit=512,  # of 1,024 that it shares with a picture of 1.5 megapixels
    scoped=lambda size: {"resolutions": [size]},
    mean_source=True,
    time_scale=1000.0,
    axis=-1,
    batch_args=("encoder_hidden_states", "pooled_projections"),
    lora_targets=("to_query", "to_key", "to_value", "self_attention.out_layer", "cross_attention.out_layer"),
)

Z_IMAGE_OMNI = Family(
    name="z-image-omni",
    pipeline="ZImageOmniPipeline",
    sources=None,
    listed=True,
    guidance_arg="guidance_scale",
    guidance=0.0,
    text_limit=512,
    tokenized=lambda text: (f"<|vision_end|>{text}{QWEN_ASSISTANT}<|vision_start|>",),
    fitted=True,
    mean_source=True,
    latents="x",
    time="t",
    time_scale=-1.0,
    time_shift=1.0,
    sign=-1,
    target="last",
    batch_args=(),
    list_args=("cap_feats", "siglip_feats", "image_noise_mask"),
    lora_targets=ATTENTION,
)


def _omnigen_rows(arguments: dict[str, Any], rows: int) -> dict[str, Any]:
    """OmniGen's sources are in one list; a dict holds their places in the text of each row."""
    places = arguments["input_image_sizes"].get(0, [])
    return {
        "input_image_sizes": dict.fromkeys(range(rows), places) if places else {},
        "input_img_latents": arguments["input_img_latents"][: len(places)] * rows,
    }


OMNIGEN = Family(
    name="omnigen",
    pipeline="OmniGenPipeline",
    image="input_images",
    sources=3,
    listed=True,
    tag="<img><|image_{}|></img> ",
    guidance_arg="guidance_scale",
    guidance=1.0,
    training_settings={"img_guidance_scale": 1.0},
    text_tokens=None,
    fitted=True,
    mean_source=True,
    time_scale=-1.0,
    time_shift=1.0,
    sign=-1,
    batch_args=("input_ids", "attention_mask", "position_ids"),
    expand=_omnigen_rows,
    lora_targets=ATTENTION,
)

QWEN_IMAGE = replace(
    QWEN_IMAGE_EDIT,
    name="qwen-image",
    pipeline="QwenImagePipeline",
    image=None,
    sources=0,
    text_limit=512,
    tokenized=lambda text: (f"{text}{QWEN_ASSISTANT}",),
    multiple=16,
    area_functions=(),
)

FLUX = Family(
    name="flux",
    pipeline="FluxPipeline",
    image=None,
    sources=0,
    guidance_arg="guidance_scale",
    guidance=3.5,
    text_limit=512,
    tokenizer="tokenizer_2",
    batch_args=("encoder_hidden_states", "pooled_projections", "guidance"),
    lora_targets=JOINT_ATTENTION,
)

STABLE_DIFFUSION_3 = Family(
    name="stable-diffusion-3",
    pipeline="StableDiffusion3Pipeline",
    image=None,
    sources=0,
    guidance_arg="guidance_scale",
    guidance=1.0,
    text_limit=256,
    tokenizer="tokenizer_3",
    time_scale=1000.0,
    batch_args=("encoder_hidden_states", "pooled_projections"),
    conditional="last",
    lora_targets=JOINT_ATTENTION,
)

RECORDS = tuple(record for record in list(globals().values()) if isinstance(record, Family))
FAMILIES = {family.pipeline: family for family in RECORDS}
"""The record of each pipeline class, by its name."""
