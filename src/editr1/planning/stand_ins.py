"""What the rehearsal of a step has in place of a GPU, its libraries, a judge and a dataset.

`pack` stands for a quantised linear layer: as those of bitsandbytes and torchao, it holds packed weights, makes whole
ones in each forward and backward pass, and frees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import Parameter

from editr1.config.settings import Quantization
from editr1.data.samples import EditSample
from editr1.judges.base import JudgeRequest, Score

INSTRUCTION = "make the red car blue"
OWN_PIXELS = 1024 * 1024
"""Area of a picture for pipelines that choose it themselves."""
BLOCK = 64
"""Weights of NF4 that share a scale of 4 bytes."""


class Ranking:
    """A judge that takes no time: of n edits, the i-th gets i / n, so that no group is dropped."""

    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, all different."""
        return [Score(place / len(requests)) for place in range(len(requests))]


def item(pixels: int | None) -> EditSample:
    """An item with a square picture of this area."""
    side = round((pixels or OWN_PIXELS) ** 0.5)
    return EditSample("0", Image.new("RGB", (side, side), (90, 120, 150)), INSTRUCTION)


class Packed(nn.Linear):
    """A linear layer with quantised weights, for frozen ones.

    Args:
        layer: The layer that it replaces, on the meta device.
        kind: Number format.
        dtype: That of its computation.
    """

    def __init__(self, layer: nn.Linear, kind: Quantization, dtype: torch.dtype) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, "meta", dtype)
        count = layer.weight.numel()
        size = count // 2 + count // BLOCK * 4 if kind == "nf4" else count + layer.out_features * dtype.itemsize
        self.weight = Parameter(torch.empty(size, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.bias, self.dtype = layer.bias, dtype

    def forward(self, input: Tensor) -> Tensor:
        """As a linear layer; bitsandbytes computes in its own number format whatever that of the input is."""
        output: Tensor = _Unpacking.apply(input.to(self.dtype), self.weight, self.out_features, self.dtype)
        return (output if self.bias is None else output + self.bias).to(input.dtype)


class _Unpacking(torch.autograd.Function):
    """x W^T with packed W, which is unpacked again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.shape, ctx.dtype = (outputs, x.shape[-1]), dtype
        return x @ _unpacked(packed, ctx.shape, dtype).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (packed,) = ctx.saved_tensors
        return gradients[0] @ _unpacked(packed, ctx.shape, ctx.dtype), None, None, None


def _unpacked(packed: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return packed.new_zeros(shape, dtype=dtype)


def pack(model: nn.Module, kind: Quantization, dtype: torch.dtype) -> None:
    """Replace the linear layers of a model on the meta device by quantised ones."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Packed(child, kind, dtype))
