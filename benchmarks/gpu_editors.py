"""Editors at their published sizes with random weights, without a download: sizes from benchmarks/published/*.json.

A file names the pipeline, and per part its class and what its config holds of sizes; "tiny" are the same models small
enough for a test, and "like" names a file that it changes. Tokenizers are the toy's: only their numbers of tokens
matter. Weights are drawn on the device, in their number format, one tensor after the other; `quantize` goes the way of
diffusers' `from_pretrained`, which takes each weight as it is read.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from diffusers import DiffusionPipeline
from diffusers.quantizers import DiffusersAutoQuantizer
from torch import Tensor, nn
from transformers import CLIPTokenizer, Qwen2Tokenizer, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from editr1.config.settings import Quantization
from editr1.editors.memory import quantization
from editr1.toy_models.flux_text import make_clip_tokenizer, make_t5_tokenizer
from editr1.toy_models.language import load_tokenizer

Sizes = dict[str, Any]
PUBLISHED = Path(__file__).parent / "published"
EDITORS = tuple(sorted(file.stem for file in PUBLISHED.glob("*.json")))
DEVIATION = 0.02
CLIP_TOKENS, T5_TOKENS = 77, 512
LEAST_PIXELS, MOST_PIXELS = 56 * 56, 3584 * 3584  # of Qwen2.5-VL's processor
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@cache
def read_sizes(name: str, tiny: bool = False) -> tuple[str, dict[str, Sizes]]:
    """The pipeline's class and the sizes of its parts."""
    tree = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    if "like" in tree:
        base = json.loads((PUBLISHED / f"{tree['like']}.json").read_text(encoding="utf-8"))
        tree = overlaid(base, tree)
    return tree["pipeline"], overlaid(tree["parts"], tree["tiny"]) if tiny else tree["parts"]


def overlaid(base: Sizes, other: Sizes) -> Sizes:
    """`base` with the values of `other`, at any depth."""
    both = {key: overlaid(base[key], other[key]) for key in base.keys() & other.keys() if isinstance(base[key], dict)}
    return {**base, **other, **both}


def build_pipeline(
    name: str, dtype: torch.dtype, device: torch.device, quantize: Quantization | None = None, tiny: bool = False
) -> DiffusionPipeline:
    """The pipeline with random weights, on its device.

    Raises:
        UserError: `quantize` lacks its package or a GPU.
    """
    kind, parts = read_sizes(name, tiny)
    words = build_tokenizers(kind)
    generator = torch.Generator(device).manual_seed(0)
    built: dict[str, Any] = {}
    for part, sizes in parts.items():
        if part == "scheduler":
            built[part] = diffusers.FlowMatchEulerDiscreteScheduler.from_config(without_class(sizes))
            continue
        model = build_model(sizes, ids_of(sizes["class"], words))
        if part == "transformer" and quantize is not None:
            fill_quantized(model, quantize, dtype, generator)
        else:
            fill(model, dtype, generator)
        built[part] = model
    settings = {"is_distilled": False} if kind == "Flux2KleinPipeline" else {}
    pipe: DiffusionPipeline = getattr(diffusers, kind)(**built, **words, **settings)
    return pipe.to(device)  # buffers


def build_model(sizes: Sizes, ids: Sizes) -> nn.Module:
    """A model whose parameters are on the meta device."""
    with init_empty_weights():
        if hasattr(diffusers, sizes["class"]):
            model: nn.Module = getattr(diffusers, sizes["class"])(**without_class(sizes))
        else:
            kind = getattr(transformers, sizes["class"])
            model = kind(kind.config_class(**without_class(sizes), **ids))
    return model.eval()


def without_class(sizes: Sizes) -> Sizes:
    """The arguments of a model's config."""
    return {key: value for key, value in sizes.items() if key != "class"}


def build_tokenizers(pipeline: str) -> dict[str, Any]:
    """Tokenizers, and the processor of pictures, as the pipeline names them."""
    if pipeline == "FluxKontextPipeline":
        clip, t5 = make_clip_tokenizer(), make_t5_tokenizer()
        clip.model_max_length, t5.model_max_length = CLIP_TOKENS, T5_TOKENS
        return {"tokenizer": clip, "tokenizer_2": t5}
    tokenizer = load_tokenizer()
    if pipeline == "Flux2KleinPipeline":
        tokenizer.chat_template = CHAT
        return {"tokenizer": tokenizer}
    pictures = Qwen2VLImageProcessor(patch_size=14, min_pixels=LEAST_PIXELS, max_pixels=MOST_PIXELS)
    return {"tokenizer": tokenizer, "processor": Qwen2VLProcessor(pictures, tokenizer, Qwen2VLVideoProcessor())}


def ids_of(kind: str, words: dict[str, Any]) -> Sizes:
    """The token ids that a text encoder's config names, as its tokenizer has them."""
    tokenizer = words["tokenizer"]
    if kind == "CLIPTextModel":
        assert isinstance(tokenizer, CLIPTokenizer)
        return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if kind == "Qwen2_5_VLForConditionalGeneration":
        assert isinstance(tokenizer, Qwen2Tokenizer)
        names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
        return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{pad}|>") for name, pad in names.items()}
    return {}


def draw(name: str, like: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A weight: 0 for a bias, 1 for any other vector (it scales, as a norm's), else normal."""
    weight = torch.empty(like.shape, dtype=dtype, device=generator.device)
    if name.endswith("bias"):
        return weight.zero_()
    if like.squeeze().ndim == 1:
        return weight.fill_(1)
    return weight.normal_(std=DEVIATION, generator=generator)


def fill(model: nn.Module, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Draw the weights of a model that has none."""
    for name, param in list(model.named_parameters()):
        set_module_tensor_to_device(model, name, generator.device, value=draw(name, param, dtype, generator))
    if isinstance(model, transformers.PreTrainedModel):
        model.tie_weights()
    for name, buffer in list(model.named_buffers()):
        if buffer.is_floating_point() and name in model.state_dict():
            set_module_tensor_to_device(model, name, generator.device, value=buffer.to(dtype))


def fill_quantized(model: Any, kind: Quantization, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Draw the weights of a denoiser, and quantise those of its linear layers, as diffusers does while it reads them.

    Raises:
        UserError: A package or a GPU is missing.
    """
    config = quantization(kind, "transformer", dtype).quant_mapping["transformer"]
    quantizer = DiffusersAutoQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None, keep_in_fp32_modules=[])
    for name, param in list(model.named_parameters()):
        value = draw(name, param, dtype, generator)
        if quantizer.check_if_quantized_param(model, value, name, {}, param_device=generator.device):
            quantizer.create_quantized_param(model, value, name, generator.device, {}, [], dtype=dtype)
        else:
            set_module_tensor_to_device(model, name, generator.device, value=value)
    quantizer.postprocess_model(model)
    model.hf_quantizer = quantizer
