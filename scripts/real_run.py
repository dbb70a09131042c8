"""What a step of a real editor costs, by count: `python scripts/real_run.py`. No weights, no GPU.

The denoisers are built on torch's meta device from diffusers' default configs, which are those of Qwen-Image-Edit and
FLUX.1 Kontext. Their parameters are counted, and the operations of one call (torch's flop counter) at 512x512 with one
source: forward, and backward through frozen weights. A step of the defaults makes 24 x 12 edits of 6 calls, and trains
each at 5 levels: one call with gradient, one of the old policy, one of the reference.

The hours assume that a GPU does 40 % of an H100's dense bfloat16 peak (989 teraflops, by its data sheet). That share is
an assumption, not a measurement; text encoder, VAE and judge come on top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, QwenImageTransformer2DModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from editr1.algorithms.nft import NFT
from editr1.config.settings import RolloutConfig

PEAK, SHARE = 989e12, 0.4
SIDE = 32  # tokens of 16x16 pixels along a side of 512
TEXT = 512


def qwen() -> tuple[nn.Module, dict[str, Any]]:
    """Qwen-Image-Edit's denoiser and the arguments of one row."""
    model, tokens = QwenImageTransformer2DModel(), 2 * SIDE**2
    return model, {
        "hidden_states": torch.zeros(1, tokens, 64, requires_grad=True),
        "encoder_hidden_states": torch.zeros(1, TEXT, 3584),
        "encoder_hidden_states_mask": None,
        "timestep": torch.zeros(1),
        "img_shapes": [[(1, SIDE, SIDE), (1, SIDE, SIDE)]],
    }


def kontext() -> tuple[nn.Module, dict[str, Any]]:
    """FLUX.1 Kontext's denoiser and the arguments of one row."""
    model, tokens = FluxTransformer2DModel(guidance_embeds=True), 2 * SIDE**2
    return model, {
        "hidden_states": torch.zeros(1, tokens, 64, requires_grad=True),
        "encoder_hidden_states": torch.zeros(1, TEXT, 4096),
        "pooled_projections": torch.zeros(1, 768),
        "timestep": torch.zeros(1),
        "guidance": torch.zeros(1),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(TEXT, 3),
    }


def count(build: Callable[[], tuple[nn.Module, dict[str, Any]]]) -> tuple[int, int, int]:
    """Parameters, and operations of one call forward and backward."""
    with torch.device("meta"):
        model, arguments = build()
        model.requires_grad_(False)
        with FlopCounterMode(display=False) as forward:
            output = model(**arguments, return_dict=False)[0]
        with FlopCounterMode(display=False) as backward:
            output.sum().backward()
    return sum(p.numel() for p in model.parameters()), forward.get_total_flops(), backward.get_total_flops()


def main() -> None:
    """Print a line per editor."""
    rollout = RolloutConfig()
    edits = rollout.groups_per_step * rollout.group_size
    levels = NFT().levels_per_edit(rollout.steps)
    for name, build in {"Qwen-Image-Edit": qwen, "FLUX.1 Kontext": kontext}.items():
        parameters, forward, backward = count(build)
        step = edits * (rollout.steps * forward + levels * (3 * forward + backward))
        minutes = step / (PEAK * SHARE) / 60
        print(
            f"{name}: {parameters / 1e9:.1f} billion parameters, {2 * parameters / 1e9:.0f} GB in bfloat16; "
            f"{step / 1e15:.0f} petaflop per step, {minutes:.0f} minutes on one H100 at {SHARE:.0%} of its peak"
        )


if __name__ == "__main__":
    main()
