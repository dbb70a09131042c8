"""LoRAs under the names of the original checkpoints, as ComfyUI loads them: `diffusion_model.<module>.<matrix>`.

Qwen-Image has diffusers' names. FLUX names its blocks differently and fuses projections into one layer,
e.g. to_q, to_k, to_v -> qkv. A fused LoRA of scale s is exact: down = [A_q; A_k; A_v] and up = diag(B_q, B_k, B_v).
Left out: FLUX's modules outside its blocks, which no recipe trains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editr1.errors import UserError


@dataclass(frozen=True)
class Layer:
    """The LoRA of one linear layer: W + scale * up @ down.

    Attributes:
        down: Matrix "lora_A", [rank, in].
        up: Matrix "lora_B", [out, rank].
        scale: Factor alpha / rank.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """Change of the weight, [out, in], float32."""
        return self.scale * (self.up.float() @ self.down.float())


Lora = dict[str, Layer]
"""Layers by the names of diffusers' modules."""

Fusions = Mapping[str, Sequence[str]]
"""Original module -> the diffusers modules in it, in order; "N" is the block's number."""

FLUX_ATTENTION: Fusions = {
    "double_blocks.N.img_attn.qkv": [f"transformer_blocks.N.attn.to_{part}" for part in "qkv"],
    "double_blocks.N.txt_attn.qkv": [f"transformer_blocks.N.attn.add_{part}_proj" for part in "qkv"],
    "double_blocks.N.img_attn.proj": ["transformer_blocks.N.attn.to_out.0"],
    "double_blocks.N.txt_attn.proj": ["transformer_blocks.N.attn.to_add_out"],
}
FLUX_1: Fusions = {
    **FLUX_ATTENTION,
    "double_blocks.N.img_mlp.0": ["transformer_blocks.N.ff.net.0.proj"],
    "double_blocks.N.img_mlp.2": ["transformer_blocks.N.ff.net.2"],
    "double_blocks.N.txt_mlp.0": ["transformer_blocks.N.ff_context.net.0.proj"],
    "double_blocks.N.txt_mlp.2": ["transformer_blocks.N.ff_context.net.2"],
    "double_blocks.N.img_mod.lin": ["transformer_blocks.N.norm1.linear"],
    "double_blocks.N.txt_mod.lin": ["transformer_blocks.N.norm1_context.linear"],
    "single_blocks.N.linear1": [
        *(f"single_transformer_blocks.N.attn.to_{part}" for part in "qkv"),
        "single_transformer_blocks.N.proj_mlp",
    ],
    "single_blocks.N.linear2": ["single_transformer_blocks.N.proj_out"],
    "single_blocks.N.modulation.lin": ["single_transformer_blocks.N.norm.linear"],
}
FLUX_2: Fusions = {
    **FLUX_ATTENTION,
    "double_blocks.N.img_mlp.0": ["transformer_blocks.N.ff.linear_in"],
    "double_blocks.N.img_mlp.2": ["transformer_blocks.N.ff.linear_out"],
    "double_blocks.N.txt_mlp.0": ["transformer_blocks.N.ff_context.linear_in"],
    "double_blocks.N.txt_mlp.2": ["transformer_blocks.N.ff_context.linear_out"],
    "single_blocks.N.linear1": ["single_transformer_blocks.N.attn.to_qkv_mlp_proj"],
    "single_blocks.N.linear2": ["single_transformer_blocks.N.attn.to_out"],
}


@dataclass(frozen=True)
class Original:
    """Layout of the LoRA files of one denoiser class.

    Attributes:
        fusions: Fused layers; None if the names are diffusers' own.
        matrices: Endings of down and up that both ComfyUI and diffusers' loader of this class can read.
        alpha: Whether there are `.alpha` keys; without them, `up` is multiplied by the scale.
    """

    fusions: Fusions | None
    matrices: tuple[str, str] = ("lora_A", "lora_B")
    alpha: bool = True


ORIGINALS = {
    "QwenImageTransformer2DModel": Original(None),
    "FluxTransformer2DModel": Original(FLUX_1, ("lora_down", "lora_up")),
    "Flux2Transformer2DModel": Original(FLUX_2, alpha=False),
}


def to_original(lora: Lora, denoiser: str, width: Callable[[str], int]) -> dict[str, Tensor]:
    """The tensors of a ComfyUI file.

    Args:
        lora: The LoRA to write.
        denoiser: Class name of the denoiser.
        width: Output features of a diffusers module.

    Raises:
        UserError: The original name of the denoiser or of a module is unknown.
    """
    form = _original(denoiser)
    down, up = form.matrices
    tensors: dict[str, Tensor] = {}
    for name, layer in _fused(lora, form, width).items():
        factor = 1.0 if form.alpha else layer.scale
        tensors[f"diffusion_model.{name}.{down}.weight"] = layer.down.contiguous()
        tensors[f"diffusion_model.{name}.{up}.weight"] = (factor * layer.up).contiguous()
        if form.alpha:
            tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(layer.scale * layer.rank)
    return tensors


def from_original(layers: Lora, denoiser: str | None) -> Lora:
    """Layers under diffusers' names, from the names in a ComfyUI file (which may be these); fused layers are split.

    `denoiser` is the class name of the denoiser, if it is known; only FLUX needs it.
    """
    if not any(re.match(r"(double|single)_blocks\.", name) for name in layers):
        return layers
    if denoiser is None:
        raise UserError("FLUX.1 and FLUX.2 share these names (double_blocks, ...): name the denoiser")
    fusions = _original(denoiser).fusions or {}
    places = {name: _with_n(name) for name in layers}
    if unknown := [name for name, (pattern, _) in places.items() if pattern not in fusions]:
        raise UserError(f"{denoiser} has no counterpart of {listing(unknown)}")
    layers_by_name: Lora = {}
    for name, (pattern, number) in places.items():
        layers_by_name |= _split(name, layers[name], [_numbered(part, number) for part in fusions[pattern]])
    return layers_by_name


def listing(names: Sequence[str], most: int = 5) -> str:
    """The number of names, and the first of them."""
    return f"{len(names)} ({', '.join(sorted(names)[:most])}{', ...' if len(names) > most else ''})"


def _original(denoiser: str) -> Original:
    if denoiser not in ORIGINALS:
        raise UserError(
            f"the ComfyUI names of {denoiser} are unknown, those of {', '.join(ORIGINALS)} are: use --format diffusers"
        )
    return ORIGINALS[denoiser]


def _fused(lora: Lora, form: Original, width: Callable[[str], int]) -> Lora:
    if form.fusions is None:
        return lora
    owner = {part: original for original, parts in form.fusions.items() for part in parts}
    places = {name: _with_n(name) for name in lora}
    if unknown := [name for name, (pattern, _) in places.items() if pattern not in owner]:
        raise UserError(f"these modules have no ComfyUI name: {listing(unknown)}; use --format diffusers")
    layers_by_name: Lora = {}
    for original, number in dict.fromkeys((owner[pattern], number) for pattern, number in places.values()):
        parts = [_numbered(part, number) for part in form.fusions[original]]
        layers_by_name[_numbered(original, number)] = lora[parts[0]] if len(parts) == 1 else _joined(lora, parts, width)
    return layers_by_name


def _joined(lora: Lora, parts: Sequence[str], width: Callable[[str], int]) -> Layer:
    """One layer of the sum of the ranks; a part without LoRA gets rows of zeros."""
    present = [lora[part] for part in parts if part in lora]
    scales = {layer.scale for layer in present}
    scale = scales.pop() if len(scales) == 1 else 1.0
    down = torch.cat([layer.down for layer in present])
    up = down.new_zeros(sum(width(part) for part in parts), len(down))
    row = column = 0
    for part in parts:
        if layer := lora.get(part):
            factor = layer.scale / scale
            up[row : row + len(layer.up), column : column + layer.rank] = factor * layer.up
            column += layer.rank
        row += width(part)
    return Layer(down, up, scale)


def _split(name: str, layer: Layer, parts: Sequence[str]) -> Lora:
    """Undo `_joined`: each part keeps the ranks that reach it; parts of zeros are left out. q, k, v are square."""
    if len(parts) == 1:
        return {parts[0]: layer}
    size = layer.down.shape[1]
    widths = [size] * 3 + [len(layer.up) - 3 * size] * (len(parts) - 3)
    if sum(widths) != len(layer.up) or min(widths) <= 0:
        raise UserError(f"{name}: {len(layer.up)} rows are not those of {', '.join(parts)} with {size} inputs")
    layers_by_name: Lora = {}
    for part, rows in zip(parts, layer.up.split(widths), strict=True):
        used = (rows != 0).any(dim=0) if layer.up.any() else torch.ones(layer.rank, dtype=torch.bool)
        if used.any():
            layers_by_name[part] = Layer(layer.down[used].contiguous(), rows[:, used].contiguous(), layer.scale)
    return layers_by_name


def _with_n(name: str) -> tuple[str, str]:
    """("double_blocks.N.linear1", "3") of "double_blocks.3.linear1"."""
    stack, _, rest = name.partition(".")
    number, _, leaf = rest.partition(".")
    return (f"{stack}.N.{leaf}", number) if number.isdigit() else (name, "")


def _numbered(pattern: str, number: str) -> str:
    return pattern.replace(".N.", f".{number}.", 1)
