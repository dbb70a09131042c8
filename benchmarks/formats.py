"""What number formats cost and change in one layer: those of a LoRA's products, and those of the base's products.

    python benchmarks/formats.py [ROUNDS]

The layer is an attention projection of Qwen-Image-Edit (3072 wide) in bfloat16, on the 2,048 tokens of an edit at
512x512 with its source; on a GPU if there is one. Two tables, as JSON; the ways of a table take turns, ROUNDS times
each, 10 by default:

    lora      forward and backward pass with a LoRA of rank 32, whose products are made in float32, TF32, or bfloat16
              (`adapter.autocast`): median milliseconds, their ratio to the layer without a LoRA, and the bytes that are
              kept for the backward pass
    rollout   forward pass alone, the weights in bfloat16, int8 (`memory.quantize=int8`), and with inputs in int8 or
              float8 too, as a copy of the weights for rollouts would be: median milliseconds, their ratio to bfloat16,
              and the relative difference of the output. All compiled, as torchao's formats are slow otherwise

A way that this machine lacks (TF32, float8, torchao) says so.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from editr1.config.settings import AdapterConfig
from editr1.devices import pick_device
from editr1.editors.memory import multiply_in_tf32
from editr1.editors.policies import LoraPolicies
from editr1.errors import UserError, first_line

WIDTH, RANK, TOKENS = 3072, 32, 2048
WARM = 2
QUANTISED = {
    "int8 weights": "Int8WeightOnlyConfig",
    "int8 weights and inputs": "Int8DynamicActivationInt8WeightConfig",
    "float8 weights and inputs": "Float8DynamicActivationFloat8WeightConfig",
}
Row = dict[str, Any]
Way = Callable[[], Row]
"""Makes a pass, and returns what else is told of it than its time."""


class Layer(nn.Module):
    """A frozen projection in bfloat16; the same one each time."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.proj = nn.Linear(WIDTH, WIDTH, dtype=torch.bfloat16).to(device).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y


def inputs(device: torch.device) -> Tensor:
    """Random tokens [TOKENS, WIDTH]."""
    return torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).to(device, torch.bfloat16)


def lora(device: torch.device, policy: str = "default", autocast: bool = False, tf32: bool = False) -> Way:
    """A forward and a backward pass of the layer with a LoRA."""
    multiply_in_tf32(tf32, device)
    layer = Layer(device)
    policies = LoraPolicies(layer, "transformer", AdapterConfig(rank=RANK, autocast=autocast), ["proj"], 0)
    x = inputs(device).requires_grad_()

    def step() -> Row:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        multiply_in_tf32(tf32, device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), policies.using(policy):
            y: Tensor = layer(x)
        y.backward(torch.ones_like(y))
        weight: Tensor = layer.get_parameter("proj.base_layer.weight")
        return {"kept_bytes": sum(kept.values()) - weight.nbytes}

    return step


def rollout(device: torch.device, kind: str | None = None) -> Way:
    """A forward pass of the layer, quantised by torchao's configuration `kind`."""
    layer, x = Layer(device), inputs(device)
    want = layer(x).float()
    if kind is not None:
        torchao = import_module("torchao.quantization")
        torchao.quantize_(layer, getattr(torchao, kind)())
    layer.compile()

    @torch.no_grad()
    def step() -> Row:
        y = layer(x).float()
        return {"difference": float((y - want).norm() / want.norm())}

    return step


def tried(name: str, build: Callable[[], Way], steps: dict[str, Way]) -> Row:
    """What the first pass of a way tells, which is then among `steps`; or why this machine lacks it."""
    try:
        step = build()
        row = step()
    except (UserError, ImportError, AssertionError, RuntimeError) as error:
        return {"failed": first_line(error)}
    steps[name] = step
    return row


def compared(ways: Mapping[str, Callable[[], Way]], rounds: int, device: torch.device) -> dict[str, Row]:
    """Each way's row; the ratio is that to the first way."""
    steps: dict[str, Way] = {}
    rows = {name: tried(name, build, steps) for name, build in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= WARM:
                seconds[name].append(time.perf_counter() - start)
    first = median(next(iter(seconds.values())))
    for name, spent in seconds.items():
        rows[name] |= {"ms": 1e3 * median(spent), "ratio": median(spent) / first}
    return rows


def main(rounds: int) -> None:
    """Measure and print."""
    device = pick_device("auto")
    loras: dict[str, Callable[[], Way]] = {
        "no LoRA": lambda: lora(device, "reference"),
        "float32": lambda: lora(device),
        "TF32": lambda: lora(device, tf32=True),
        "bfloat16": lambda: lora(device, autocast=True),
    }
    bases: dict[str, Callable[[], Way]] = {"bfloat16": lambda: rollout(device)}
    bases |= {name: lambda kind=kind: rollout(device, kind) for name, kind in QUANTISED.items()}  # type: ignore[misc]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    tables = {"lora": compared(loras, rounds, device), "rollout": compared(bases, rounds, device)}
    print(json.dumps({"card": card, "torch": torch.__version__, "rounds": rounds, **tables}, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
