"""The tap: record what a pipeline tells its denoiser, and tell the denoiser the same again with other latents.

The pipeline stays a black box. All edits of a group share every argument but their own latents, so one row is kept.
Left out: pipelines that call the denoiser twice a step (classifier-free guidance).

Letters: G edits of a group, B rows of a replay, N target tokens, S source tokens, C channels of a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from editr1.editors.families import Family

TOKENS, TIME = "hidden_states", "timestep"


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser was told besides the latents and the time.

    Attributes:
        rows: arguments with a batch dimension, one row each, [1, ...]; None stays None.
        shared: all other arguments, as they were.
        source: source-image tokens, which stand after the target tokens, [1, S, C]; S may be 0.
    """

    rows: dict[str, Tensor | None]
    shared: dict[str, Any]
    source: Tensor


@dataclass(frozen=True)
class Call:
    """One call of the denoiser as it happened: its keyword arguments and the tensor that it returned, [G, N + S, C]."""

    arguments: dict[str, Any]
    output: Tensor


@dataclass
class Tap:
    """What was seen of the denoiser: its first and its last call, and the times (scalars) of all calls."""

    first: Call | None = None
    last: Call | None = None
    times: list[Tensor] = field(default_factory=list)


@contextmanager
def tapped(denoiser: nn.Module) -> Iterator[Tap]:
    """Record the calls of `denoiser` made inside."""
    tap = Tap()

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        tap.last = Call(kwargs, output[0])
        tap.first = tap.first or tap.last
        tap.times.append(kwargs[TIME][0].float())

    handle = denoiser.register_forward_hook(record, with_kwargs=True)
    try:
        yield tap
    finally:
        handle.remove()


def condition(call: Call, family: Family, target_tokens: int) -> Conditioning:
    """Keep one row of what `call` was told; `target_tokens` is N."""
    arguments = call.arguments
    rows = {name: _first_row(arguments[name]) for name in family.batch_args if name in arguments}
    shared = {name: value for name, value in arguments.items() if name not in (*rows, TOKENS, TIME)}
    return Conditioning(rows, shared, arguments[TOKENS][:1, target_tokens:].clone())


def arguments_for(conditioning: Conditioning, x_t: Tensor, t: Tensor) -> dict[str, Any]:
    """The denoiser's arguments for latents `x_t` [B, N, C] at times `t` [B] in [0, 1]."""
    batch, source = len(x_t), conditioning.source
    tokens = torch.cat([x_t.to(source.dtype), source.expand(batch, -1, -1)], dim=1)  # [B, N + S, C]
    rows = {name: None if row is None else _repeat(row, batch) for name, row in conditioning.rows.items()}
    return {**conditioning.shared, **rows, TOKENS: tokens, TIME: t.to(source.dtype)}


def replay(denoiser: nn.Module, conditioning: Conditioning, x_t: Tensor, t: Tensor) -> Tensor:
    """Velocity eps - x0 of the target tokens, [B, N, C], in the denoiser's dtype; gradients flow."""
    output: Tensor = denoiser(**arguments_for(conditioning, x_t, t))[0]  # [B, N + S, C]
    return output[:, : x_t.shape[1]]


def largest_difference(a: Any, b: Any) -> float:
    """Largest absolute difference of two arguments; infinite where they cannot be compared, 0 where they are equal."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return 0.0 if a is b or a == b else float("inf")
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    return 0.0 if torch.equal(a, b) else (a.double() - b.double()).abs().max().item()


def _first_row(value: Tensor | None) -> Tensor | None:
    return None if value is None else value[:1].clone()


def _repeat(row: Tensor, batch: int) -> Tensor:
    """[1, ...] -> [B, ...]; a copy, since kernels may round differently on expanded strides."""
    return row.expand(batch, *row.shape[1:]).contiguous()
