"""What the tests of memory and speed settings share: rollouts, gradients, and what is counted and compared."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from editr1.config.settings import AdapterConfig
from editr1.editors.editor import Editor, Rollout
from tests.tiny import shake, tiny_sample

POLICIES: tuple[Any, ...] = ("default", "old", "reference")


def make(editor: Editor, edits: int = 2) -> Rollout:
    return editor.rollout(tiny_sample(), edits, steps=2, seed=0)


def inputs_of(editor: Editor) -> tuple[Any, Tensor, Tensor]:
    rollout = make(editor)
    return rollout.conditioning, rollout.latents, torch.tensor([0.3, 0.8])


def with_lora(editor: Editor) -> Editor:
    """Policies, "default" away from the others."""
    editor.add_policies(AdapterConfig(rank=3, alpha=12))
    shake(editor)
    return editor


def gradients(editor: Editor, inputs: Any, during: Any = None) -> list[Tensor]:
    """Of "default", by a velocity; `during` surrounds the backward pass."""
    weights = [weight for _, weight in editor.policies.parameters()]
    loss = editor.velocity(*inputs).square().sum()
    with during or nullcontext():
        return [*torch.autograd.grad(loss, weights, materialize_grads=True)]  # zeros where a weight is not used


def same(rollout: Rollout, other: Rollout) -> bool:
    pictures = zip(rollout.images, other.images, strict=True)
    return torch.equal(rollout.latents, other.latents) and all(a.tobytes() == b.tobytes() for a, b in pictures)


def relative(found: Tensor, right: Tensor) -> float:
    return float((found - right).norm() / right.norm())


def count_calls(module: nn.Module) -> list[None]:
    """A list that grows by every call of a module, those of a backward pass included."""
    calls: list[None] = []
    module.register_forward_pre_hook(lambda *_: calls.append(None))
    return calls
