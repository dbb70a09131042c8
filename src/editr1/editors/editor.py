"""An editor: a stock diffusers pipeline, its family record, and the three things that training asks of it.

`rollout` calls the pipeline as a user would, `velocity` replays its denoiser call for training, `self_check` proves
that both see the same. Nothing of a pipeline is copied here.

Letters: G edits of a group, B rows of a replay, N target tokens, C channels of a token.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image
from torch import Tensor, nn

from editr1.data import EditSample
from editr1.editors.families import FAMILIES, Family, Size
from editr1.editors.tap import (
    TIME,
    TOKENS,
    Call,
    Conditioning,
    arguments_for,
    condition,
    largest_difference,
    replay,
    tapped,
)
from editr1.errors import UserError
from editr1.samplers import SCHEDULERS, SchedulerName

if TYPE_CHECKING:
    from editr1.editors.adapters import Policies


class EditorMismatch(UserError):
    """Training would not see what inference sees; the message names the argument that differs."""


@dataclass(frozen=True)
class Rollout:
    """G edits of one sample.

    Attributes:
        conditioning: what the denoiser was told; one row, since all G edits share it.
        latents: clean results x0 of the sampler, [G, N, C], float32.
        images: the decoded edits, G of them, RGB.
        times: at which the sampler called the denoiser, falling, in [0, 1], [steps], float32.
        last_call: the denoiser call of the last step, all G rows, for `Editor.self_check`.
    """

    conditioning: Conditioning
    latents: Tensor
    images: list[Image]
    times: Tensor
    last_call: Call


class Editor:
    """A diffusers pipeline and its family record; the only thing that training and evaluation see of a model.

    Args:
        pipe: the pipeline; all its weights are frozen here.
        family: its record.
        guidance: None for the family's default.
        pixels: area of source and edit; None for the pipeline's own.

    Raises:
        UserError: `guidance` is given for an editor that takes none.
    """

    def __init__(
        self, pipe: DiffusionPipeline, family: Family, *, guidance: float | None = None, pixels: int | None = None
    ) -> None:
        if guidance is not None and family.guidance is None:
            raise UserError(f"editor.guidance={guidance}: {family.name} takes no guidance; leave it out.")
        self.pipe, self.family, self.pixels = pipe, family, pixels
        self.guidance = family.guidance if guidance is None else guidance
        self.denoiser: nn.Module = pipe.transformer
        self.policies: Policies | None = None
        for component in pipe.components.values():
            if isinstance(component, nn.Module):
                component.requires_grad_(False)
        pipe.set_progress_bar_config(disable=True)

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        guidance: float | None = None,
        pixels: int | None = None,
    ) -> Editor:
        """Load a pipeline folder, or a model by its hub id, and find its family record.

        Args:
            path_or_id: what `DiffusionPipeline.from_pretrained` takes.
            dtype: of all weights.
            device: where the whole pipeline goes.
            guidance: None for the family's default.
            pixels: area of source and edit; None for the pipeline's own.

        Raises:
            UserError: nothing is there, or no family record fits it.
        """
        family = find_family(path_or_id)
        pipe = DiffusionPipeline.from_pretrained(path_or_id, dtype=dtype).to(device)
        return cls(pipe, family, guidance=guidance, pixels=pixels)

    def rollout(
        self, sample: EditSample, num_edits: int, *, steps: int, seed: int, scheduler: SchedulerName = "dpm2"
    ) -> Rollout:
        """Make `num_edits` edits with the active policy; edit i depends on (seed, i) alone, not on `num_edits`.

        Args:
            sample: what to edit, and how.
            num_edits: G.
            steps: denoiser calls.
            seed: at least 0; other seeds give independent noise.
            scheduler: the sampler.

        Raises:
            UserError: the source is too elongated for the editor's area, or the sampler gives NaN or infinity.
        """
        latents: list[Tensor] = []

        def keep(_: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            latents[:] = [tensors["latents"]]
            return {}

        with self._scoped(scheduler), tapped(self.denoiser) as tap:
            images = self.pipe(
                **self.family.call(sample, self._size(sample), self.guidance),
                num_images_per_prompt=num_edits,
                num_inference_steps=steps,
                generator=[_generator(seed, i) for i in range(num_edits)],
                callback_on_step_end=keep,
            ).images
        if not latents[0].isfinite().all():
            raise UserError(
                f"sample {sample.key!r}: the sampler gave NaN or infinite latents; take at least 2 rollout.steps, and "
                "bfloat16 or float32 instead of float16."
            )
        assert tap.first is not None and tap.last is not None, "the pipeline has called its denoiser"
        conditioning = condition(tap.first, self.family, latents[0].shape[1])
        return Rollout(conditioning, latents[0].float(), images, torch.stack(tap.times), tap.last)

    def velocity(self, conditioning: Conditioning, x_t: Tensor, t: Tensor) -> Tensor:
        """Velocity eps - x0 of the active policy at x_t = (1 - t) x0 + t eps; gradients flow.

        Args:
            conditioning: of the group that all rows belong to.
            x_t: noised latents, [B, N, C].
            t: times in [0, 1], [B].

        Returns:
            [B, N, C], float32.
        """
        return replay(self.denoiser, conditioning, x_t, t).float()

    @torch.no_grad()
    def self_check(self, rollout: Rollout) -> None:
        """Replay the last denoiser call of a rollout, under the same policy; the result must be equal bit for bit.

        Raises:
            EditorMismatch: it is not.
        """
        arguments, recorded = rollout.last_call.arguments, rollout.last_call.output
        tokens = rollout.latents.shape[1]
        x_t, t = arguments[TOKENS][:, :tokens], arguments[TIME]
        replayed = self.velocity(rollout.conditioning, x_t, t)
        off = largest_difference(replayed, recorded[:, :tokens].float())
        if off > 0:
            replay_arguments = arguments_for(rollout.conditioning, x_t, t)
            raise EditorMismatch(self._explain(off, arguments, replay_arguments))

    def _explain(self, off: float, recorded: dict[str, Any], replayed: dict[str, Any]) -> str:
        """Which argument differs between the recorded call and its replay, if any does."""
        differences = {name: largest_difference(recorded[name], replayed.get(name)) for name in recorded}
        wrong = ", ".join(f"{name} by {size:.3g}" for name, size in differences.items() if size > 0)
        hint = (
            f"arguments that differ: {wrong}; look at batch_args of the family record {self.family.name!r}"
            if wrong
            else "all arguments are equal, so the denoiser itself gives two answers: is another policy active than in "
            "the rollout, is dropout on, are kernels nondeterministic?"
        )
        return f"replaying a recorded denoiser call gives another velocity (largest difference {off:.3g}); {hint}"

    def _size(self, sample: EditSample) -> Size | None:
        """Width and height of the edit: the editor's area in the source's shape; None for the pipeline's own choice."""
        if self.pixels is None:
            return None
        width, height = sample.source.size
        ratio, multiple = width / height, self.family.multiple
        exact = (self.pixels * ratio) ** 0.5
        size = round(exact / multiple) * multiple, round(exact / ratio / multiple) * multiple
        if 0 in size:
            raise UserError(
                f"sample {sample.key!r}: a source of {width}x{height} is too elongated for "
                f"editor.pixels={self.pixels}; raise editor.pixels or crop the source."
            )
        return size

    @contextmanager
    def _scoped(self, scheduler: SchedulerName) -> Iterator[None]:
        """The pipeline with another scheduler and other source areas, put back at the end whatever happens."""
        module, pipe, family = sys.modules[type(self.pipe).__module__], self.pipe, self.family
        areas: dict[str, int] = {}
        if self.pixels is not None:
            areas |= dict.fromkeys(family.source_areas, self.pixels)
            areas |= {name: min(self.pixels, getattr(module, name)) for name in family.preview_areas}
        sampler = SCHEDULERS[scheduler].from_config(pipe.scheduler.config)
        with temporarily(pipe, scheduler=sampler), temporarily(module, **areas):
            yield


def find_family(path_or_id: str | Path) -> Family:
    """The record for a pipeline folder or hub id.

    Raises:
        UserError: nothing is there, or there is no record for its pipeline class.
    """
    try:
        index = DiffusionPipeline.load_config(path_or_id)
    except (OSError, ValueError) as error:
        raise UserError(
            f"editor.path={str(path_or_id)!r}: no diffusers pipeline there; give a folder with a model_index.json, "
            "or a hub id."
        ) from error
    name = index.get("_class_name")
    if name not in FAMILIES:
        raise UserError(f"editor.path={str(path_or_id)!r}: no family record for {name}; known: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


@contextmanager
def temporarily(target: object, **values: object) -> Iterator[None]:
    """Set attributes of `target` that it has already, and put the old values back at the end."""
    before = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


def _generator(seed: int, index: int) -> torch.Generator:
    """Noise of edit `index`: made on the CPU, so that it is the same on every device."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0]))
