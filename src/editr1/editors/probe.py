"""The probe: run a pipeline a few times, look at its denoiser's arguments, and derive its family record from them.

Two runs with groups of 2 and of 3 show which arguments have a batch dimension. Two steps of one run show which argument
is the time, and where the target's latents are. The scheduler shows the meaning of the time and the sign of the
prediction. Two instructions under guidance show which calls or rows are conditional. A replay of every denoiser call
of a rollout then checks the record.

Letters: G edits of a group, R rows of a denoiser call.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from editr1.data.samples import EditSample
from editr1.editors.editor import Editor, EditorMismatch, fit
from editr1.editors.family import DENOISERS, End, Family
from editr1.editors.recorder import (
    Recording,
    final_target,
    largest_difference,
    map_tensors,
    predicted,
    target_length,
    target_of,
)
from editr1.errors import UserError

STEPS = 3
PIXELS = 256 * 256
IMAGE_ARGUMENTS = ("image", "images", "input_images", "reference_images", "ref_images", "source_image")
GUIDANCE_ARGUMENTS = ("true_cfg_scale", "guidance_scale")
TIMES = ((1.0, 0.0), (1000.0, 0.0), (-1.0, 1.0), (-1000.0, 1000.0), (1000.0, -1.0))
"""Meanings of a time argument in pipelines: (scale, shift)."""
INSTRUCTIONS = ("replace the red ball by a cat", "replace the red ball by a dog")  # of equal length in tokens


@dataclass(frozen=True)
class Probe:
    """The results of the probe.

    Attributes:
        family: The derived record.
        record: editr1's own record of this pipeline class, if it has one.
        disagreements: Fields in which the two differ, as "field: derived, recorded".
        calls: Denoiser calls per step, and rows of a call per edit, without guidance.
        guided: The same with classifier-free guidance; None if it cannot be switched on.
        differences: Largest difference of each replayed call from the pipeline's own, under `record` if there is one.
        error: Why the replay failed; None if it did not.
    """

    family: Family
    record: Family | None
    disagreements: list[str]
    calls: tuple[int, int]
    guided: tuple[int, int] | None
    differences: list[float]
    error: str | None


def probe(pipe: DiffusionPipeline, *, record: Family | None = None, pixels: int | None = None) -> Probe:
    """Derive the record of a pipeline, compare it with editr1's own `record`, and replay a rollout with one of them.

    The replay uses `record`, or the derived one if there is none.

    Raises:
        UserError: The pipeline cannot be called as its signature suggests, or its calls have no known form.
    """
    draft = record or _unguided(pipe, draft_family(pipe), pixels)
    family, plain, guided = _derive(pipe, draft, pixels)
    editor, error, differences = Editor(pipe, record or family, pixels=pixels), None, []
    try:
        rollout = editor.rollout(
            _sample(editor.family, pixels), 2, steps=STEPS, seed=0, scheduler="euler", every_call=True
        )
        differences = editor.self_check(rollout)
    except EditorMismatch as mismatch:
        error = str(mismatch)
    disagreements = _disagreements(family, record, plain) if record else []
    return Probe(family, record, disagreements, _shape(plain, family), guided, differences, error)


def derive_family(pipe: DiffusionPipeline, *, pixels: int | None = None) -> Family:
    """The record of a pipeline that editr1 does not know.

    Raises:
        UserError: It cannot be derived, or its replay is not what the pipeline computes.
    """
    result = probe(pipe, pixels=pixels)
    if result.error is not None:
        raise UserError(f"{result.family.pipeline} has no family record, and the derived one fails: {result.error}")
    return result.family


def draft_family(pipe: DiffusionPipeline) -> Family:
    """How a pipeline is called, according to its signature and its module.

    Raises:
        UserError: It has no denoiser.
    """
    parameters = inspect.signature(pipe.__call__).parameters
    module = vars(sys.modules[type(pipe).__module__])
    image = next((name for name in IMAGE_ARGUMENTS if name in parameters), None)
    denoiser = next((name for name in DENOISERS if isinstance(getattr(pipe, name, None), nn.Module)), None)
    if denoiser is None:
        raise UserError(f"{type(pipe).__name__} has no denoiser: none of its components is called {DENOISERS}.")
    guidance_arg = next((name for name in GUIDANCE_ARGUMENTS if name in parameters), None)
    embedded = bool(getattr(pipe, denoiser).config.get("guidance_embeds"))
    if embedded and "guidance_scale" in parameters:
        guidance_arg = "guidance_scale"
    areas = [name for name, value in module.items() if name.isupper() and isinstance(value, int) and value >= 256**2]
    functions = ("calculate_dimensions",) if callable(module.get("calculate_dimensions")) else ()
    return Family(
        name=re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(pipe).__name__.removesuffix("Pipeline")).lower(),
        pipeline=type(pipe).__name__,
        image=image,
        sources=1 if image else 0,
        negative=" " if "negative_prompt" in parameters else None,
        guidance_arg=guidance_arg,
        guidance=None if guidance_arg is None else parameters[guidance_arg].default if embedded else 1.0,
        takes_size={"width", "height"} <= parameters.keys(),
        repeats="num_images_per_prompt" in parameters,
        text_tokens="max_sequence_length" if "max_sequence_length" in parameters else None,
        multiple=2 * getattr(pipe, "vae_scale_factor", 8),
        fitted=image is not None and not areas and not functions,
        source_areas=tuple(name for name in areas if "CONDITION" not in name),
        preview_areas=tuple(name for name in areas if "CONDITION" in name),
        area_functions=functions,
        denoiser=denoiser,
        batch_args=(),
        lora_targets=attention_projections(getattr(pipe, denoiser)),
    )


def attention_projections(denoiser: nn.Module) -> tuple[str, ...]:
    """Names of the linear layers inside attention modules, as LoRA targets that match no other module."""
    names: dict[str, None] = {}
    others = [name for name, module in denoiser.named_modules() if not isinstance(module, nn.Linear)]
    for module in denoiser.modules():
        if "attention" in type(module).__name__.lower() or "attn" in type(module).__name__.lower():
            names |= {name: None for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    plain = [n for n in names if not any(other == n or other.endswith(f".{n}") for other in others)]
    return tuple(n for n in plain if not any(n != other and n.endswith(f".{other}") for other in plain))


def record_source(family: Family) -> str:
    """The record as Python code, without fields that have their defaults."""
    default = Family(name="", pipeline="", batch_args=(), lora_targets=())
    changed = [f.name for f in fields(Family) if getattr(family, f.name) != getattr(default, f.name)]
    lines = [f"    {name}={getattr(family, name)!r}," for name in changed]
    return "\n".join(["Family(", *lines, ")"])


def _unguided(pipe: DiffusionPipeline, draft: Family, pixels: int | None) -> Family:
    """The draft with the guidance that takes the fewest rows: some pipelines switch it off at 1, some at 0."""
    if draft.guidance != 1.0:
        return draft
    rows = {value: _rows(_run(pipe, draft, pixels, 1, guidance=value)) for value in (1.0, 0.0)}
    return draft if rows[1.0] <= rows[0.0] else replace(draft, guidance=0.0)


def _rows(recording: Recording) -> int:
    """Rows of all denoiser calls of a step."""
    return sum(
        len(next(v for v in call.arguments.values() if isinstance(v, Tensor | list))) for call in recording.steps[-1]
    )


def _derive(
    pipe: DiffusionPipeline, draft: Family, pixels: int | None
) -> tuple[Family, Recording, tuple[int, int] | None]:
    """The draft completed by its denoiser's calls, a run without guidance, and `_shape` of one with guidance."""
    two, three = (_run(pipe, draft, pixels, edits) for edits in (2, 3))
    first, second = (call.arguments for call in two.calls[:2])
    changing = [name for name in first if name in second and largest_difference(first[name], second[name]) > 0]
    times = [name for name in changing if isinstance(first[name], Tensor) and first[name].ndim <= 1]
    latents = max((n for n in changing if n not in times), key=lambda n: _numel(first[n]), default=None)
    if latents is None or not times:
        raise UserError(
            f"{draft.pipeline}: no arguments of its denoiser look like latents and time; these change from step to "
            f"step: {', '.join(changing) or 'none'}."
        )
    scale, shift = _time_meaning(draft, [call.arguments[times[0]] for call in two.calls], two.sigmas, _inverted(pipe))
    axis, target, length = _place(first[latents], second[latents], two.inputs[0][1])
    others = [name for name in first if name not in (latents, times[0])]
    rows = len(first[latents]), len(three.calls[0].arguments[latents])
    pairs = {name: (first[name], three.calls[0].arguments.get(name)) for name in others}
    family = replace(
        draft,
        latents=latents,
        time=times[0],
        time_scale=scale,
        time_shift=shift,
        axis=axis,
        target=target,
        length=length,
        batch_args=tuple(name for name, (a, b) in pairs.items() if _batched(a, b, rows)),
        list_args=tuple(name for name, (a, b) in pairs.items() if _listed(a, b, rows)),
    )
    family = replace(family, sign=_sign(family, two, _inverted(pipe)))
    if family.guidance_arg is None or family.guidance is None or family.guidance > 1:  # none, or embedded
        return family, two, None
    strong = [_run(pipe, draft, pixels, 2, guidance=3.0, instruction=text) for text in INSTRUCTIONS]
    return replace(family, conditional=_conditional(family, *strong)), two, _shape(strong[0], family)


def _run(
    pipe: DiffusionPipeline,
    family: Family,
    pixels: int | None,
    edits: int,
    guidance: float | None = None,
    instruction: str = INSTRUCTIONS[0],
) -> Recording:
    """Call the pipeline as the editor does, and record everything."""
    editor = Editor(pipe, family, guidance=guidance, pixels=pixels)
    sample = _sample(family, pixels, instruction)
    try:
        recording = editor.sample_recorded(sample, edits, steps=STEPS, seed=0, scheduler="euler", every_call=True)[1]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{family.pipeline} cannot be called as its signature suggests: {type(error).__name__}: {error}"
        ) from error
    if len(recording.steps) < 2:
        raise UserError(f"{family.pipeline} does not call {family.denoiser!r} and its scheduler at every step.")
    return recording


def _sample(family: Family, pixels: int | None, instruction: str = INSTRUCTIONS[0]) -> EditSample:
    """A sample with a smooth source that is not square and has the editor's area."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    size = fit((3, 2), pixels or PIXELS, family.multiple)
    return EditSample("probe", Image.fromarray(coarse).resize(size), instruction)


def _inverted(pipe: DiffusionPipeline) -> bool:
    """Whether the scheduler's own time rises from noise: it is 1 - t, and its velocity x0 - eps."""
    return bool(pipe.scheduler.config.get("invert_sigmas"))


def _numel(value: Any) -> int:
    tensors: list[Tensor] = []
    map_tensors(value, lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return sum(tensor.numel() for tensor in tensors)


def _time_meaning(family: Family, times: list[Tensor], sigmas: Tensor | None, inverted: bool) -> tuple[float, float]:
    """(scale, shift) of the time argument."""
    assert sigmas is not None, "the scheduler has stepped"
    levels = [1 - float(sigma) if inverted else float(sigma) for sigma in sigmas[: len(times)]]
    values = [float(time.flatten()[0]) for time in times]
    for scale, shift in TIMES:
        errors = [abs(level * scale + shift - value) for level, value in zip(levels, values, strict=True)]
        if max(errors) <= 0.01 * abs(scale):  # bfloat16 has 8 bits
            return scale, shift
    raise UserError(f"{family.pipeline}: its denoiser's times {values} do not follow from the noise levels {levels}.")


def _place(first: Any, second: Any, sample: Tensor) -> tuple[int, End, int | None]:
    """(axis, end, length) of the part of the latents' argument that changes from step to step."""
    if isinstance(first, list):
        return 1, "last", None
    if first.shape != second.shape:  # only the first step has the source
        axis = next(i for i in range(1, first.ndim) if first.shape[i] != second.shape[i])
        at_start = torch.equal(first.narrow(axis, 0, second.shape[axis]).float(), sample.reshape(second.shape).float())
        return axis, "first" if at_start else "last", None
    for axis in range(first.ndim - 1, 0, -1):
        changed = (first != second).transpose(0, axis).flatten(1).any(dim=1)
        count = int(changed.sum())
        if count == len(changed):
            continue
        end: End = "first" if bool(changed[:count].all()) else "last"
        scheduled = sample.ndim == first.ndim and sample.shape[axis] == count
        return (axis - first.ndim if axis == first.ndim - 1 and axis > 2 else axis), end, None if scheduled else count
    return 1, "first", None


def _batched(two: Any, three: Any, rows: tuple[int, int]) -> bool:
    """Whether every tensor of an argument has one row per row of the call; None counts, as it may become a mask."""
    if two is None:
        return True
    shapes: tuple[list[int], list[int]] = ([], [])
    for value, sizes in zip((two, three), shapes, strict=True):
        map_tensors(value, lambda t, sizes=sizes: sizes.append(len(t) if t.ndim else 0) or t)  # type: ignore[misc]
    return bool(shapes[0]) and all(set(sizes) == {count} for sizes, count in zip(shapes, rows, strict=True))


def _listed(two: Any, three: Any, rows: tuple[int, int]) -> bool:
    """Whether an argument is a list with one entry per row of the call."""
    if _batched(two, three, rows):
        return False
    return all(isinstance(value, list) and len(value) == count for value, count in zip((two, three), rows, strict=True))


def _sign(family: Family, recording: Recording, inverted: bool) -> Literal[1, -1]:
    """+1 if the denoiser predicts eps - x0, by comparison of its output with the scheduler's input."""
    (prediction, sample), output = recording.inputs[0], recording.calls[0].output
    shape = tuple(target_of(recording.calls[0].arguments[family.latents], family, _extent(family, recording)).shape[1:])
    target = predicted(output, replace(family, sign=1), shape)[: len(sample)].float()
    along = float((target.flatten() * final_target(prediction, family, shape).flatten().float()).sum())
    if along == 0:
        raise UserError(f"{family.pipeline}: its scheduler does not get the prediction of its denoiser.")
    return 1 if (along > 0) != inverted else -1


def _extent(family: Family, recording: Recording) -> int:
    return target_length(recording.calls[0].arguments, family, recording.inputs[0][1])


def _conditional(family: Family, one: Recording, other: Recording) -> End:
    """Which rows of a call change with the instruction, if guided rows share one call.

    Raises:
        UserError: The first call of a step is not the conditional one.
    """
    a, b = (recording.calls[0].arguments for recording in (one, other))
    blocks = len(a[family.latents]) // 2

    def differ(block: int) -> bool:
        rows = slice(2 * block, 2 * block + 2)
        named = [name for name in family.batch_args if isinstance(a.get(name), Tensor)]
        return any(largest_difference(a[name][rows], b[name][rows]) > 0 for name in named) or any(
            largest_difference(a[name][rows], b[name][rows]) > 0 for name in family.list_args if a.get(name)
        )

    if blocks == 1 and not differ(0):
        raise UserError(f"{family.pipeline}: the first denoiser call of a step does not see the instruction.")
    return "last" if blocks > 1 and not differ(0) else "first"


def _shape(recording: Recording, family: Family) -> tuple[int, int]:
    """Denoiser calls per step, and rows of a call per edit, in a run with two edits."""
    return len(recording.steps[-1]), len(recording.calls[-1].arguments[family.latents]) // 2


def _disagreements(family: Family, record: Family, recording: Recording) -> list[str]:
    """Differences between the derived `family` and `record` in the denoiser's call."""
    names = ("latents", "time", "time_scale", "time_shift", "sign", "target", "conditional")
    pairs: dict[str, tuple[Any, Any]] = {name: (getattr(family, name), getattr(record, name)) for name in names}
    arguments = recording.calls[0].arguments
    for name in ("batch_args", "list_args"):
        derived, own = (sorted(a for a in getattr(f, name) if _numel(arguments.get(a)) > 0) for f in (family, record))
        pairs[name] = derived, own
    return [f"{name}: {derived!r}, recorded {own!r}" for name, (derived, own) in pairs.items() if derived != own]
