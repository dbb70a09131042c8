"""One denoiser call by several ranks, each with a part of the tokens: diffusers' context parallelism (Ulysses).

The ranks are a mesh, replicate x context: `parallel.context` neighbours make every call together, with equal arguments.
Hooks of diffusers give each of them its part of the tokens of text and pictures. In attention a rank sees all tokens,
of its part of the heads: ranks exchange their parts before and after it. The prediction is gathered in the end.

In the backward pass, the gather gives each rank the gradient of its own part of the prediction, and attention sends
back what is due to the tokens of others. So the gradient of a weight on a rank is what the work of this rank adds to
it, and the sum over the ranks of a group is the gradient of one process: a loss that they all compute counts once.

All ranks of a group must make the same calls in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from itertools import count
from typing import Any

import torch
from diffusers import ContextParallelConfig, ModelMixin
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.functional import pad

from editr1.editors.editor import Editor, temporarily
from editr1.editors.family import check_area
from editr1.editors.sharding import groups_of
from editr1.errors import UserError, first_line

PICTURE, TEXT, MASK = "hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask"
"""Arguments of a denoiser: tokens of pictures and of the text, [B, N, C], and which of the latter count, [B, N]."""
Arguments = dict[str, Any]


def open_context(ranks: int, context: int, device: str) -> DeviceMesh | None:
    """The mesh replicate x context of all ranks, for devices of one type; None for `context` 1: each works alone.

    Raises:
        UserError: The ranks are no multiple of `context`.
    """
    if context == 1:
        return None
    setting = f"parallel.context={context} shares each call of the denoiser among {context} processes"
    groups = groups_of(ranks, context, setting)
    # diffusers asks for these names of the two ways to share; ring attention needs kernels that only GPUs have
    return init_device_mesh(device, (groups, 1, context), mesh_dim_names=("replicate", "ring", "ulysses"))


def check_context(kind: type[ModelMixin], settings: Mapping[str, Any], context: int) -> None:
    """Refuse a class of denoisers with these settings, if its calls cannot be shared among `context` ranks."""
    if kind._cp_plan is None:
        raise UserError(
            f"parallel.context={context}: diffusers does not share the tokens of {kind.__name__}; set it to 1, and "
            "for large pictures lower optim.micro_batch and set memory.gradient_checkpointing"
        )
    heads = settings["num_attention_heads"]
    if heads % context:
        raise UserError(
            f"parallel.context={context} does not divide the {heads} attention heads of {kind.__name__}; give a divisor"
        )


def share_tokens(editor: Editor, mesh: DeviceMesh, attention: str | None = None) -> None:
    """Let the ranks of a group share each call of the editor's denoiser, whose class `check_context` accepts.

    Sizes of edits are rounded so that the tokens of every picture can be divided; texts are padded, under a mask.

    Args:
        editor: The editor.
        mesh: Mesh of `open_context`.
        attention: The denoiser's attention backend; None for diffusers' default.

    Raises:
        UserError: The backend does not share tokens, or the smallest such picture is larger than the editor's area.
    """
    denoiser: Any = editor.denoiser
    context = mesh["ulysses"].size()
    masked = MASK in signature(denoiser.forward).parameters
    if masked and attention not in (None, "native"):
        raise UserError(
            f"parallel.context={context} pads the texts of {editor.family.name} under a mask, which "
            f"memory.attention={attention!r} may not take; set it to null"
        )
    token = 2 * editor.pipe.vae_scale_factor  # the side of a token, which is 2x2 latents, in pixels
    editor.family = replace(editor.family, multiple=coarser(editor.family.multiple, token, context))
    if editor.pixels is not None:
        check_area(editor.family, editor.pixels)
    # diffusers 0.42 calls a function that torch 2.15 renames
    warnings.filterwarnings("ignore", message=".*all_gather_tensor. is deprecated", category=FutureWarning)
    devices = max(torch.accelerator.device_count(), 1)  # diffusers divides by it, on a CPU too
    try:
        with temporarily(torch.accelerator, device_count=lambda: devices):
            denoiser.enable_parallelism(config=ContextParallelConfig(ulysses_degree=context, mesh=mesh))
    except ValueError as error:
        raise UserError(f"parallel.context={context}, memory.attention={attention!r}: {first_line(error)}") from error
    denoiser.register_forward_pre_hook(_dividing(context, masked), with_kwargs=True)


def coarser(multiple: int, token: int, context: int) -> int:
    """The first multiple of `multiple` such that `context` divides the tokens of every picture with such sides."""
    return next(side for side in count(multiple, multiple) if (side // token) ** 2 % context == 0)


def _dividing(context: int, masked: bool) -> Callable[..., tuple[tuple[Any, ...], Arguments]]:
    """A hook before a denoiser's call that makes its tokens divisible, or refuses them."""

    def divide(module: Any, args: tuple[Any, ...], arguments: Arguments) -> tuple[tuple[Any, ...], Arguments]:
        if arguments.get("kv_cache_mode") is not None:
            raise UserError(
                f"parallel.context={context}: this pipeline keeps keys and values of the source between calls, which "
                "cannot be shared; set it to 1"
            )
        if masked:
            arguments = arguments | padded(arguments[TEXT], arguments.get(MASK), context)
        for name, what, remedy in ((PICTURE, "picture", "editor.pixels"), (TEXT, "text", "editor.text_tokens")):
            if arguments[name].shape[1] % context:
                raise UserError(
                    f"parallel.context={context} does not divide the {arguments[name].shape[1]} {what} tokens of this "
                    f"call; change {remedy}, or set parallel.context to 1"
                )
        return args, arguments

    return divide


def padded(text: Tensor, mask: Tensor | None, context: int) -> Arguments:
    """Tokens of the text [B, N, C] and their mask [B, N], with N rounded up to a multiple of `context`."""
    extra = -text.shape[1] % context
    if extra == 0:
        return {TEXT: text, MASK: mask}
    mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if mask is None else mask
    return {TEXT: pad(text, (0, 0, 0, extra)), MASK: pad(mask, (0, extra))}
