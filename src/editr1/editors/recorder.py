"""The recorder: record how a pipeline calls its denoiser, and repeat such a call with other latents.

The pipeline is a black box. All edits of a group share every argument except their own latents, so one row of each
argument is enough. Under classifier-free guidance that is the conditional row (or a row of the conditional call, which
every pipeline makes first).

The latents of a denoiser have any shape [*shape] per row: tokens [N, C], a picture [C, H, W], ...; outside of this file
they are [N, C]: the first axis, and all others joined.

Letters: G edits of a group, B rows of a replay, R rows of a recorded call (G, or 2G and more under guidance).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from editr1.editors.family import Family


@dataclass(frozen=True)
class Conditioning:
    """The arguments of a denoiser call besides the noised latents and the time.

    Attributes:
        rows: Arguments with a batch dimension, one row each, [1, ...]; also nests of such tensors, and None.
        shared: All other arguments, unchanged.
        source: What is beside the target in the latents' argument: a tensor, empty along the family's axis if there is
            no source, or a list of tensors.
        shape: Shape of one edit's latents in the denoiser's layout.
        dtype: Number format of the latents' argument.
        time_dtype: Number format of the time argument.
    """

    rows: dict[str, Any]
    shared: dict[str, Any]
    source: Any
    shape: tuple[int, ...]
    dtype: torch.dtype
    time_dtype: torch.dtype


@dataclass(frozen=True)
class Call:
    """One call of the denoiser: its arguments by name, and its prediction (a tensor or a list)."""

    arguments: dict[str, Any]
    output: Any


@dataclass
class Recording:
    """The calls of a denoiser and its scheduler during one sampling.

    Attributes:
        steps: The denoiser's calls per step, for all steps or the first and the last one; the first call of a step is
            the conditional one, others are unconditional.
        inputs: Prediction and sample that the scheduler gets at each of these steps.
        times: The denoiser's time argument at every step, scalars.
        samples: Latents that the scheduler gets at every step.
        sigmas: The scheduler's own times; the last one is that of the clean latents.
        sample: The scheduler's latest result; in the end the clean latents.
    """

    steps: list[list[Call]] = field(default_factory=list)
    inputs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    times: list[Tensor] = field(default_factory=list)
    samples: list[Tensor] = field(default_factory=list)
    sigmas: Tensor | None = None
    sample: Tensor | None = None

    @property
    def calls(self) -> list[Call]:
        """The conditional calls."""
        return [step[0] for step in self.steps]


@contextmanager
def recording_of(denoiser: nn.Module, scheduler: Any, family: Family, *, every: bool = False) -> Iterator[Recording]:
    """Record calls of `denoiser` and steps of `scheduler` inside; with `every` all of them, as copies."""
    recording, begun = Recording(), False
    signature = inspect.signature(denoiser.forward)
    step = scheduler.step

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal begun
        arguments = {**signature.bind_partial(*args).arguments, **kwargs}
        names = arguments if every else (family.latents,)  # some pipelines write into their latents later
        arguments |= {name: map_tensors(arguments[name], torch.clone) for name in names if name in arguments}
        if begun:
            recording.steps[-1].append(Call(arguments, output[0]))
            return
        begun = True
        if not every:
            del recording.steps[1:], recording.inputs[1:]
        recording.steps.append([Call(arguments, output[0])])
        if family.time in arguments:
            recording.times.append(arguments[family.time].flatten()[0].float())

    def stepped(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal begun
        begun = False
        recording.samples.append(sample.clone())
        recording.inputs.append((model_output, recording.samples[-1]))
        result = step(model_output, timestep, sample, *args, **kwargs)
        recording.sigmas, recording.sample = scheduler.sigmas, result[0]
        return result

    handle = denoiser.register_forward_hook(record, with_kwargs=True)
    scheduler.step = stepped
    try:
        yield recording
    finally:
        handle.remove()
        scheduler.step = step


def condition(recording: Recording, family: Family, edits: int) -> Conditioning:
    """The conditioning of a group: the conditional row of the first of `edits` edits."""
    arguments = recording.calls[0].arguments
    assert recording.sample is not None, "the scheduler has stepped"
    latents = arguments[family.latents]
    row = conditional_rows(latents, family, edits).start
    length = target_length(arguments, family, recording.sample)
    rows = {name: _row(arguments[name], row, len(latents)) for name in family.batch_args if name in arguments}
    rows |= {name: [arguments[name][row]] for name in family.list_args if arguments.get(name) is not None}
    others = (*rows, family.latents, family.time)
    target = target_of(latents, family, length)
    return Conditioning(
        rows=rows,
        shared={name: value for name, value in arguments.items() if name not in others},
        source=_source(latents, family, length, row),
        shape=tuple(target.shape[1:]),
        dtype=target.dtype,
        time_dtype=arguments[family.time].dtype,
    )


def arguments_for(conditioning: Conditioning, family: Family, x_t: Tensor, time: Tensor) -> dict[str, Any]:
    """The denoiser's arguments for latents `x_t` [B, N, C] at its own times `time` [B]."""
    batch = len(x_t)
    x_t = x_t.reshape(batch, *conditioning.shape).to(conditioning.dtype)
    rows = {
        name: row * batch if name in family.list_args else map_tensors(row, lambda tensor: _repeat(tensor, batch))
        for name, row in conditioning.rows.items()
    }
    extra = family.expand(conditioning.shared, batch) if family.expand else {}
    latents = _compose(conditioning.source, family, x_t)
    return {**conditioning.shared, **rows, **extra, family.latents: latents, family.time: time}


def time_argument(conditioning: Conditioning, family: Family, t: Tensor) -> Tensor:
    """The denoiser's time argument for noise levels `t` in [0, 1]."""
    return (t * family.time_scale + family.time_shift).to(conditioning.time_dtype)


def noise_levels(times: list[Tensor], family: Family) -> Tensor:
    """The noise levels in [0, 1] for the denoiser's time arguments, [S], float32."""
    return (torch.stack(times) - family.time_shift) / family.time_scale


def replay(denoiser: nn.Module, conditioning: Conditioning, family: Family, x_t: Tensor, time: Tensor) -> Tensor:
    """Velocity eps - x0 of the target, [B, N, C] like `x_t`, in the denoiser's dtype, with gradients."""
    output = denoiser(**arguments_for(conditioning, family, x_t, time))[0]
    return predicted(output, family, conditioning.shape).reshape(x_t.shape)


def predicted(output: Any, family: Family, shape: tuple[int, ...]) -> Tensor:
    """The velocity of the target in a denoiser's output, [R, *shape]."""
    whole = isinstance(output, Tensor) and output.shape[1:].numel() == torch.Size(shape).numel()
    target = output if whole else target_of(output, family, extent(family, shape))
    return (target if family.sign > 0 else -target).reshape(-1, *shape)


def conditional_rows(latents: Any, family: Family, edits: int) -> slice:
    """The rows of a recorded call that see the instruction."""
    start = 0 if family.conditional == "first" else len(latents) - edits
    return slice(start, start + edits)


def target_length(arguments: dict[str, Any], family: Family, sample: Tensor) -> int:
    """Number of places of the target along the family's axis."""
    if family.length is not None:
        return family.length if isinstance(family.length, int) else family.length(arguments)
    return 0 if isinstance(arguments[family.latents], list) else sample.shape[family.axis]


def extent(family: Family, shape: tuple[int, ...]) -> int:
    """Number of places along the family's axis of one edit's latents [*shape]."""
    return shape[family.axis - 1 if family.axis > 0 else family.axis]


def target_of(latents: Any, family: Family, length: int) -> Tensor:
    """The target in a latents' argument or in an output, [R, *shape]."""
    if isinstance(latents, list):
        return torch.stack([row[-1] if isinstance(row, list) else row for row in latents])
    rest = latents.shape[family.axis] - length
    return latents.narrow(family.axis, rest if family.target == "last" else 0, length)


def final_target(sample: Tensor, family: Family, shape: tuple[int, ...]) -> Tensor:
    """The scheduler's final result in the denoiser's layout, [G, *shape]."""
    if sample.shape[1:].numel() == torch.Size(shape).numel():
        return sample.reshape(-1, *shape)
    return target_of(sample, family, extent(family, shape))


def tokens(sample: Tensor, family: Family, shape: tuple[int, ...]) -> Tensor:
    """Latents of a scheduler as [G, N, C], float32."""
    latents = final_target(sample, family, shape)
    return latents.reshape(len(latents), shape[0], -1).float()


def as_sample(latents: Tensor, sample: Tensor, family: Family, shape: tuple[int, ...]) -> Tensor:
    """The reverse: latents [G, N, C] in the layout of a scheduler's `sample`, beside what else is in it."""
    target = latents.reshape(-1, *shape).to(sample)
    if sample.shape[1:].numel() == torch.Size(shape).numel():
        return target.reshape(sample.shape)
    result = sample.clone()
    target_of(result, family, extent(family, shape)).copy_(target)
    return result


def largest_difference(a: Any, b: Any) -> float:
    """Largest absolute difference of two arguments; 0 if they are equal, infinity if they cannot be compared."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return max((largest_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((largest_difference(a[key], b[key]) for key in a), default=0.0)
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return 0.0 if a is b or a == b else float("inf")
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    return 0.0 if torch.equal(a, b) else (a.double() - b.double()).abs().max().item()


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of the nest `value` with `change` applied to every tensor in it."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, change) for item in value)
    return value


def _source(latents: Any, family: Family, length: int, row: int) -> Any:
    """What is beside the target in one row of a latents' argument."""
    if isinstance(latents, list):
        return list(latents[row][:-1]) if isinstance(latents[row], list) else None
    rest = latents.shape[family.axis] - length
    return latents[row : row + 1].narrow(family.axis, 0 if family.target == "last" else length, rest).clone()


def _compose(source: Any, family: Family, x_t: Tensor) -> Any:
    """The latents' argument for targets `x_t` [B, *shape]."""
    if source is None:
        return list(x_t.unbind())
    if isinstance(source, list):
        return [[*source, x] for x in x_t.unbind()]
    beside = source.expand(len(x_t), *source.shape[1:])
    return torch.cat([beside, x_t] if family.target == "last" else [x_t, beside], dim=family.axis)


def _row(value: Any, index: int, rows: int) -> Any:
    """One row of every tensor with `rows` rows in an argument."""
    return map_tensors(value, lambda t: t[index : index + 1].clone() if t.ndim and len(t) == rows else t)


def _repeat(row: Tensor, batch: int) -> Tensor:
    """[1, ...] -> [B, ...]; a copy, since kernels may round differently on expanded strides."""
    return row.expand(batch, *row.shape[1:]).contiguous() if row.ndim and len(row) == 1 else row
