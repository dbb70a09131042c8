"""LoRA files in the layouts that are in use, read into one form: `Layer`s by the names of diffusers' modules.

diffusers: `transformer.<module>.lora_A.weight` (`unet.` if the denoiser is called so), rank and alpha in the header;
  without them the scale is 1.
PEFT: `base_model.model.<module>.lora_A.weight` in adapter_model.safetensors, with adapter_config.json beside it.
Bare: as diffusers, without the prefix, as `denoiser.save_lora_adapter` writes it.
ComfyUI: `diffusion_model.<module>`, see `original_names`; an `.alpha` key beside each layer, or the scale is 1.

Anything else in a file, and any layer that a denoiser lacks, is an error that lists it; nothing is dropped. Left out:
DoRA, LoKr, biases, LoRAs of text encoders, layouts of other trainers (diffusers' own loader reads many).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from editr1.editors.family import DENOISERS
from editr1.editors.lora.comfyui import Layer, Lora, from_original, listing
from editr1.editors.lora.find import PEFT_CONFIG, find_file
from editr1.errors import UserError, parse_json, text_of

PEFT_PREFIX = "base_model.model."
LAYOUTS = {**{f"{name}.": "diffusers" for name in DENOISERS}, PEFT_PREFIX: "peft", "diffusion_model.": "comfyui"}
"""By the beginning of all keys, diffusers' being the denoiser's name in its pipeline."""
HEADER = "lora_adapter_metadata"
ALPHA_MAX = 1e9
REPEATS = 2
"""Repetitions in a pattern of names at most: more of them, or one of a group, may be compared for ever."""
ENDINGS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
}


def read_lora(path: Path, denoiser: str | None = None) -> Lora:
    """Read a LoRA.

    Args:
        path: A file or its folder.
        denoiser: Class name of its denoiser; only ComfyUI files of FLUX need it.

    Raises:
        UserError: there is no file, it cannot be read, its layout is unknown, or it holds anything else.
    """
    file = find_file(path)
    tensors, header = _read_tensors(file)
    prefix = next((prefix for prefix in LAYOUTS if any(key.startswith(prefix) for key in tensors)), "")
    layout = LAYOUTS.get(prefix, "bare")
    if not tensors or (layout == "bare" and not all(".lora_" in key for key in tensors)):
        raise UserError(
            f"{file}: the LoRA's layout is unknown (known keys begin with {', '.join(LAYOUTS)}); it holds "
            f"{listing(list(tensors))}; the weights of a whole denoiser are used with `editr1 export --merge`"
        )
    settings = _settings_beside(file) if layout == "peft" else _settings_in(header, prefix, file)
    _check_settings(settings, file)
    try:
        layers = _layers(tensors, prefix, settings)
        return from_original(layers, denoiser) if layout == "comfyui" else layers
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def load_lora_into(
    pipe: Any, path: Path, adapter: str = "lora", scale: float = 1.0, component: str = DENOISERS[0]
) -> None:
    """Load a LoRA of any layout into a pipeline's denoiser, as an adapter.

    Args:
        pipe: A diffusers pipeline.
        path: A file or its folder.
        adapter: Name of the adapter.
        scale: Factor on what the LoRA adds to the weights.
        component: Name of the denoiser in the pipeline.
    """
    denoiser = getattr(pipe, component)
    lora = read_lora(path, type(denoiser).__name__)
    lora = {name: replace(layer, scale=scale * layer.scale) for name, layer in lora.items()}
    try:
        inject(denoiser, lora, adapter)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def check_scale(lora: Path | None, scale: float) -> None:
    """Refuse a scale that multiplies nothing, or by no number."""
    if not math.isfinite(scale):
        raise UserError(f"--lora-scale {scale}: give a finite number; 1 takes the LoRA as its file says")
    if lora is None and scale != 1:
        raise UserError(f"--lora-scale {scale:g} needs a LoRA: add --lora")


def inject(denoiser: Any, lora: Lora, adapter: str = "lora") -> None:
    """Put layers into a denoiser, through diffusers' own loader if it has one, and check that all of them arrived."""
    refuse_strangers(lora, denoiser)
    settings = {**adapter_settings(lora), "target_modules": sorted(lora)}
    if isinstance(denoiser, PeftAdapterMixin):
        denoiser.load_lora_adapter(matrices(lora), prefix=None, adapter_name=adapter, metadata=settings)
    else:
        inject_adapter_in_model(LoraConfig(**settings), denoiser, adapter)
        set_peft_model_state_dict(denoiser, matrices(lora), adapter_name=adapter)
    refuse_differences(lora, injected(denoiser, adapter), "loaded into the denoiser")


def remove_adapters(denoiser: Any) -> None:
    """Remove all adapters from a denoiser; merged weights stay merged."""
    if isinstance(denoiser, PeftAdapterMixin):
        denoiser.unload_lora()
        return
    for name, module in list(denoiser.named_modules()):
        if isinstance(module, LoraLayer):
            denoiser.set_submodule(name, module.get_base_layer())


def refuse_strangers(lora: Lora, denoiser: nn.Module) -> None:
    """Refuse a LoRA with layers that the denoiser lacks, by name or by shape."""
    places = linear_shapes(denoiser)
    shapes = {name: (len(layer.up), layer.down.shape[1]) for name, layer in lora.items()}
    strangers = [name for name, shape in shapes.items() if places.get(name) != shape]
    if strangers:
        raise UserError(
            f"it is for another model than {type(denoiser).__name__}: left over, by name or shape, are "
            f"{listing(strangers)} of {len(lora)} layers"
        )


def injected(denoiser: nn.Module, adapter: str) -> Lora:
    """The layers of an adapter in a denoiser, which PEFT may wrap."""
    return {
        name.removeprefix(PEFT_PREFIX): Layer(
            module.lora_A[adapter].weight.detach(), module.lora_B[adapter].weight.detach(), module.scaling[adapter]
        )
        for name, module in denoiser.named_modules()
        if isinstance(module, LoraLayer) and adapter in module.lora_A
    }


def refuse_differences(expected: Lora, actual: Lora, where: str) -> None:
    """Refuse layers that add something else to the weights than expected, up to the rounding of their dtype.

    A layer that adds nothing may be missing. `where` is the place of the actual layers, for the message.
    """
    missing = [name for name in expected.keys() - actual.keys() if expected[name].up.any()]
    left_over = [*(actual.keys() - expected.keys())]
    other = [name for name in expected.keys() & actual.keys() if not _same(expected[name], actual[name])]
    differences = {"missing": missing, "left over": left_over, "with other values": other}
    if any(differences.values()):
        details = ", ".join(f"{what} {listing(names)}" for what, names in differences.items() if names)
        raise UserError(f"the LoRA {where} differs from the original: {details}")


def matrices(lora: Lora, prefix: str = "") -> dict[str, Tensor]:
    """The tensors as diffusers and PEFT name them, each under `prefix`."""
    return {
        f"{prefix}{name}.{matrix}.weight": tensor.contiguous()
        for name, layer in lora.items()
        for matrix, tensor in (("lora_A", layer.down), ("lora_B", layer.up))
    }


def adapter_settings(lora: Lora) -> dict[str, Any]:
    """Rank and alpha as `LoraConfig` takes them: the most common values, and patterns for the others."""
    ranks = {name: layer.rank for name, layer in lora.items()}
    alphas = {name: layer.scale * layer.rank for name, layer in lora.items()}
    rank, alpha = _most_common(ranks.values()), _most_common(alphas.values())
    return {
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "rank_pattern": {f"^{name}": value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{name}": value for name, value in alphas.items() if value != alpha},
    }


def linear_shapes(denoiser: nn.Module) -> dict[str, tuple[int, int]]:
    """(output, input) features of every linear layer, by its name without adapters."""
    shapes = {}
    for name, module in denoiser.named_modules():
        if isinstance(module, nn.Linear) and ".lora_" not in name:
            shapes[name.removesuffix(".base_layer")] = (module.out_features, module.in_features)
    return shapes


def _read_tensors(file: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(file, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the LoRA {file}: {error}; copy or download it again") from error


def _settings_beside(file: Path) -> dict[str, Any]:
    config = file.with_name(PEFT_CONFIG)
    try:
        text = text_of(config)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} has PEFT's layout, but {config.name} beside it cannot be read: {error}") from error
    return _mapping(text, str(config))


def _settings_in(header: Mapping[str, str], prefix: str, file: Path) -> dict[str, Any]:
    settings = _mapping(header.get(HEADER, "{}"), f"{file}: the header's {HEADER}")
    return {key.removeprefix(prefix): value for key, value in settings.items()}


def _mapping(text: str, where: str) -> dict[str, Any]:
    value = parse_json(text, where)
    if not isinstance(value, dict):
        raise UserError(f"{where} holds no settings of a LoRA")
    return value


def _check_settings(settings: Mapping[str, Any], file: Path) -> None:
    """Refuse settings by which no scale can be computed, and patterns that take for ever to compare with a name."""
    patterns = settings.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{file}: alpha_pattern of its settings is no mapping")
    for alpha in (settings.get("lora_alpha", 1), *patterns.values()):
        if type(alpha) not in (int, float) or not abs(alpha) <= ALPHA_MAX:
            raise UserError(f"{file}: its settings have an alpha of {str(alpha)[:80]!r}, which is no number")
    for pattern in patterns:
        repeats = sum(map(pattern.count, "*+?{"))
        if repeats > REPEATS or (repeats and "(" in pattern) or not _compiles(pattern):
            raise UserError(f"{file}: alpha_pattern of its settings holds {pattern[:80]!r}; use names of layers")


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _layers(tensors: Mapping[str, Tensor], prefix: str, settings: Mapping[str, Any]) -> Lora:
    """Sort the tensors by layer; every key must belong to a complete layer."""
    parts: dict[str, dict[str, Tensor]] = {}
    left_over = []
    for key, tensor in tensors.items():
        ending = next((ending for ending in ENDINGS if key.endswith(ending)), None)
        if ending is None or not key.startswith(prefix):
            left_over.append(key)
        else:
            parts.setdefault(key.removeprefix(prefix).removesuffix(ending), {})[ENDINGS[ending]] = tensor
    missing = [f"{name}: {part}" for name, layer in parts.items() for part in ("down", "up") if part not in layer]
    left_over += [name for name, layer in parts.items() if not _fits(layer)]
    if missing or left_over:
        problems = {"missing are": missing, "left over are": left_over}
        raise UserError("; ".join(f"{what} {listing(names)}" for what, names in problems.items() if names))
    return {
        name: Layer(layer["down"], layer["up"], _scale(layer, name, settings)) for name, layer in sorted(parts.items())
    }


def _fits(layer: Mapping[str, Tensor]) -> bool:
    """Whether down [rank, in], up [out, rank] and alpha fit together; a missing one is reported elsewhere."""
    if "down" not in layer or "up" not in layer:
        return True
    if "alpha" in layer and not (layer["alpha"].numel() == 1 and abs(float(layer["alpha"])) <= ALPHA_MAX):
        return False
    return layer["down"].ndim == layer["up"].ndim == 2 and len(layer["down"]) == layer["up"].shape[1] > 0


def _scale(layer: Mapping[str, Tensor], name: str, settings: Mapping[str, Any]) -> float:
    rank = len(layer["down"])
    if "alpha" in layer:
        return float(layer["alpha"]) / rank
    pattern: dict[str, float] = settings.get("alpha_pattern") or {}
    alpha = pattern.get(get_pattern_key(list(pattern), name), settings.get("lora_alpha", rank))
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _same(one: Layer, other: Layer) -> bool:
    """Whether two layers are equal, or add the same to the weight up to rounding."""
    if (one.rank, one.scale) == (other.rank, other.scale):
        dtype, device = other.down.dtype, other.down.device
        if all(a.to(device, dtype).equal(b) for a, b in ((one.down, other.down), (one.up, other.up))):
            return True
    a, b = one.delta(), other.delta().to(one.down.device)
    rounding = 4 * max(torch.finfo(layer.down.dtype).eps for layer in (one, other))
    return a.shape == b.shape and float((a - b).abs().max()) <= rounding * float(a.abs().max())


def _most_common(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]
