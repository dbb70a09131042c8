"""One rank of a sharded editor: `torchrun tests/editors/rank.py OUT FOLDER...`.

It makes edits with each pipeline of FOLDER... and trains once on them, as `work` says; a test does the same with the
whole editor and compares.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from editr1.config.settings import AdapterConfig, Config
from editr1.editors import sharding
from editr1.editors.editor import Editor
from editr1.editors.open import open_config_editor
from editr1.training.process_end import run_and_exit
from tests.tiny import PIXELS, tiny_sample

RANKS = 2


def config(folder: Path, **sections: Any) -> Config:
    """A run with a tiny editor."""
    editor = {"path": str(folder), "pixels": PIXELS, "dtype": "float32", "device": "cpu"}
    return Config.model_validate(
        {"editor": editor, "judge": {"path": "toy"}, "data": {"kind": "toy"}, "out": "unused", **sections}
    )


def work(
    editor: Editor,
    seed: int,
    mode: Literal["lora", "full"] = "lora",
    instruction: str = "remove the red ball",
    moved: float = 0.01,
    autocast: bool = False,
) -> dict[str, Tensor]:
    """Edits, velocities of three policies in the order of training, and the gradient of "default".

    The loss is the distance that `moved`, the largest change of a weight, makes.
    """
    rollout = editor.rollout(tiny_sample(instruction), 2, steps=2, seed=seed)
    inputs = (rollout.conditioning, rollout.latents, torch.tensor([0.3, 0.8]))
    editor.add_policies(AdapterConfig(mode=mode, rank=2, alpha=4, autocast=autocast))
    with torch.no_grad():
        for number, (_, weight) in enumerate(editor.policies.parameters()):
            weight.add_(moved * math.sin(number + 1))
    editor.policies.copy("start")
    velocities = {"default": editor.velocity(*inputs)}
    for name in ("old", "reference"):  # between the forward and the backward pass of "default"
        with torch.no_grad(), editor.policies.using(name):
            velocities[name] = editor.velocity(*inputs)
    with torch.no_grad(), editor.policies.using("old"), editor.policies.using("start"):
        velocities["start"] = editor.velocity(*inputs)
    (velocities["default"] - velocities["reference"]).square().mean().backward()
    gradients = {name: weight.grad for name, weight in editor.policies.parameters() if weight.grad is not None}
    weights = {f"{name} after": weight for name, weight in editor.policies.parameters()}
    results = {"latents": rollout.latents, **velocities, **gradients, **weights}
    return {name: whole(tensor).detach().contiguous() for name, tensor in results.items()}


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_bytes(module: torch.nn.Module) -> int:
    """Bytes of a model's weights that this rank holds, without LoRAs."""
    weights = {name: w for name, w in module.named_parameters() if "lora_" not in name}
    locals_ = [w.to_local() if hasattr(w, "to_local") else w for w in weights.values()]
    return sum(w.numel() * w.element_size() for w in locals_)


def meet(place: str) -> None:
    dist.barrier()


def main(out: Path, folders: list[Path]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    sharding.LARGE = 0  # the tiny text encoders are sharded too
    for folder in folders:
        for checkpointing in (False, True):
            memory = {
                "gradient_checkpointing": checkpointing,
                "offload": checkpointing,
            }  # one run with each, one without
            run = config(folder, parallel={"shard": RANKS}, memory=memory)
            editor = open_config_editor(run, RANKS, meet)
            own = sharded_bytes(editor.denoiser)
            place = out / f"{folder.name}-{checkpointing}-{rank}"
            save_file(work(editor, seed=rank), f"{place}.safetensors")
            facts = {"bytes": own, "name": type(editor.denoiser).__name__, "sharded": editor.is_sharded}
            Path(f"{place}.json").write_text(json.dumps(facts))
        for gathered in (False, True):
            with patch("editr1.editors.open.keeps_gathered", return_value=gathered):
                editor = open_config_editor(config(folder, parallel={"shard": RANKS}), RANKS, meet)
            results = work(editor, seed=rank, mode="full")
            save_file(results, out / f"{folder.name}-full-{gathered}-{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    run_and_exit(lambda: main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
