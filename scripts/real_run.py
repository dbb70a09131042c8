"""What a step of a real editor costs on one GPU and on many, by count: `python scripts/real_run.py`. Needs no GPU.

The denoisers are built on torch's meta device from diffusers' default configs, which are those of Qwen-Image-Edit and
FLUX.1 Kontext. Their parameters are counted, and the operations of one call (torch's flop counter) at 512x512 with one
source and 512 tokens of text: forward, and backward through frozen weights. A step of the defaults makes 24 x 12 edits
of 6 calls, and trains each at 5 levels: one call with gradient, one of the old policy, one of the reference.

The times assume that a GPU does 40 % of an H100's dense bfloat16 peak (989 teraflops, by its data sheet). That share is
an assumption, not a measurement; text encoder, VAE and judge come on top.

The tables of docs/scale.md follow. Memory: the denoiser's weights, whole, quantised (linear layers alone) or over 8
GPUs; what training a LoRA of the default rank adds; what gradient checkpointing keeps of a row, the inputs of the
blocks. Time: the edits and rows of the busiest of N ranks, by the functions that training shares them out with, and
one more forward pass per row for gradient checkpointing; messages between GPUs are not counted. Judge: its tokens are
those of two 512x512 pictures (as Qwen2.5-VL cuts them) and of the default words, at 4 characters a token (an
assumption); a token costs 2 operations per weight, at the same share of the peak. It keeps up if it has judged all
edits when they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, QwenImageTransformer2DModel
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from editr1.algorithms.nft import NFT
from editr1.config.settings import AdapterConfig, RolloutConfig
from editr1.data.samples import EditSample
from editr1.editors.families import JOINT_ATTENTION
from editr1.judges.base import JudgeRequest
from editr1.judges.prompts import load_prompt
from editr1.training.sharing import share_edits, share_rows, widened

PEAK, SHARE = 989e12, 0.4
JUDGE = 32e9  # weights of the presets' judge
GPUS = (1, 8, 16, 64)
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


@cache
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


def weights(build: Callable[[], tuple[nn.Module, dict[str, Any]]]) -> dict[str, float]:
    """Gigabytes: of the denoiser by kind of its weights, of what trains its LoRA, and of the blocks' inputs per row."""
    with torch.device("meta"):
        model, arguments = build()
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    flat = sum(part.weight.numel() for part in linear.values())
    rest = sum(p.numel() for p in model.parameters()) - flat
    attention = [part for name, part in linear.items() if any(name.endswith(f".{end}") for end in JOINT_ATTENTION)]
    lora = AdapterConfig().rank * sum(part.in_features + part.out_features for part in attention)
    tokens = arguments["hidden_states"].shape[1] + TEXT
    blocks = sum(
        len(part) for name, part in model.named_children() if isinstance(part, nn.ModuleList) and "blocks" in name
    )
    gigabytes = {
        "bfloat16": 2 * (flat + rest),
        "int8": flat + 2 * rest,
        "nf4": 4.5 / 8 * flat + 2 * rest,
        "over 8": 2 * (flat + rest) / 8,
        "LoRA": 24 * lora,
        "row": 2 * blocks * tokens * model.inner_dim,
    }
    return {name: size / 1e9 for name, size in gigabytes.items()}


def busiest(gpus: int, rollout: RolloutConfig, levels: int) -> tuple[int, int]:
    """Edits that the busiest of so many ranks makes in a step, and rows that the busiest one trains on."""
    size, groups = rollout.group_size, rollout.groups_per_step
    shares = share_edits(groups, size, gpus)
    edits = max(sum(widened(share, size).count for share in own) for own in shares)
    rows = share_rows([(index, size * levels, 1) for index in range(groups)], gpus)
    return edits, max(sum(share.stop - share.start for share in own) for own in rows)


def judge_tokens() -> int:
    """Tokens of one question about one edit."""
    height, width = smart_resize(512, 512, factor=28)
    picture = Image.new("RGB", (512, 512))
    sample = EditSample(
        "0", picture, "Make the car red.", requirement="The car is red; all else is as before.", task="adjust"
    )
    parts = load_prompt("full", "paper").parts(JudgeRequest(sample, picture))
    return 2 * (height // 28) * (width // 28) + sum(len(part) for part in parts if isinstance(part, str)) // 4


def print_tables() -> None:
    """Print the tables of docs/scale.md."""
    rollout = RolloutConfig()
    levels, tokens = NFT().levels_per_edit(rollout.steps), judge_tokens()
    editors = {"Qwen-Image-Edit": qwen, "FLUX.1 Kontext": kontext}
    print("\n| denoiser, GB | bfloat16 | int8 | nf4 | bfloat16 over 8 GPUs | its LoRA | each row |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, build in editors.items():
        print(f"| {name} | " + " | ".join(f"{size:.1f}" for size in weights(build).values()) + " |")
    judging = rollout.groups_per_step * rollout.group_size * 2 * JUDGE * tokens / (PEAK * SHARE)
    print(f"\n{tokens} tokens per edit, {judging:.0f} GPU-seconds of judging per step")
    print("\n| editor | GPUs | edits, rows of the busiest | making edits | step | of ideal | GPUs of the judge |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, build in editors.items():
        _, forward, backward = count(build)
        alone = 0.0
        for gpus in GPUS:
            edits, rows = busiest(gpus, rollout, levels)
            making = edits * rollout.steps * forward / (PEAK * SHARE)
            step = making + rows * (4 * forward + backward) / (PEAK * SHARE)
            alone = alone or step
            print(
                f"| {name} | {gpus} | {edits}, {rows} | {making:.0f} s | {step:.0f} s | {alone / gpus / step:.0%} | "
                f"{judging / making:.1f} |"
            )


def main() -> None:
    """Print a line per editor."""
    rollout = RolloutConfig()
    edits = rollout.groups_per_step * rollout.group_size
    levels = NFT().levels_per_edit(rollout.steps)
    for name, build in {"Qwen-Image-Edit": qwen, "FLUX.1 Kontext": kontext}.items():
        parameters, forward, backward = count(build)
        step = edits * (rollout.steps * forward + levels * (3 * forward + backward))
        longer = step + edits * levels * forward  # gradient checkpointing computes the blocks again
        minutes, more = (flop / (PEAK * SHARE) / 60 for flop in (step, longer))
        print(
            f"{name}: {parameters / 1e9:.1f} billion parameters, {2 * parameters / 1e9:.0f} GB in bfloat16; "
            f"{step / 1e15:.0f} petaflop per step, {minutes:.0f} minutes on one H100 at {SHARE:.0%} of its peak, "
            f"{more:.0f} with gradient checkpointing: {100 * more / 60:.0f} hours for 100 steps"
        )
    print_tables()


if __name__ == "__main__":
    main()
