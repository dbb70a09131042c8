"""LoRA products in the number format of their layer's input; weights, gradient and optimiser stay in float32.

PEFT casts a layer's input to the format of the LoRA's weights. On a bfloat16 denoiser, both products of every adapted
layer are then made in float32, and its input is kept in float32 for the backward pass. Here the weights are cast
instead, at each call, which is what `torch.autocast` does to a linear layer.
"""

from __future__ import annotations

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from editr1.errors import UserError


class CastLinear(nn.Linear):
    """A linear layer without bias that computes in the format of its input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = linear.weight

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype))


def cast_weights(denoiser: nn.Module, adapter: str) -> None:
    """Let the LoRA `adapter` of a denoiser compute in the format of its layers' inputs; its Parameters are the same.

    Raises:
        UserError: One of them belongs to a layer that is not linear.
    """
    layers = [(name, module) for name, module in denoiser.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in layers:
        layer.cast_input_dtype_enabled = False
        for parts in (layer.lora_A, layer.lora_B):
            linear = dict(parts.items()).get(adapter)  # an embedding has its parts elsewhere
            if not isinstance(linear, nn.Linear):
                raise UserError(f"adapter.autocast: {name} is no linear layer; leave it out of adapter.targets")
            parts[adapter] = CastLinear(linear)
