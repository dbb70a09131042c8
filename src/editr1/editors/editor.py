"""An editor: a stock diffusers pipeline, its family record, and three methods for training.

`rollout` calls the pipeline as a user does, `velocity` replays its denoiser call for training, `self_check` proves that
both see the same. No code of a pipeline is copied here.

Letters: G edits of a group, B rows of a replay, N target tokens, C channels of a token.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image, Resampling
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from editr1.config.settings import AdapterConfig, SchedulerName, StepNoise
from editr1.data.samples import EditSample
from editr1.data.seeds import derive_seed, edit_seed
from editr1.editors import recorder
from editr1.editors.family import Family, Size, check_area
from editr1.editors.policies import FullPolicies, LoraPolicies, Policies, ShardedPolicies
from editr1.editors.recorder import Call, Conditioning, Recording, largest_difference
from editr1.editors.samplers import SCHEDULERS
from editr1.editors.sde import noisy, recorded_transitions
from editr1.editors.sharding import is_sharded
from editr1.editors.text_limit import faults_of
from editr1.errors import UserError


class EditorMismatch(UserError):
    """A replay differs from the pipeline's own call; the message names the argument that differs."""


@dataclass(frozen=True)
class Rollout:
    """G edits of one sample.

    Attributes:
        conditioning: Arguments of the denoiser; one row, as all G edits share them.
        latents: Clean results x0 of the sampler, [G, N, C], float32.
        images: The G decoded edits, RGB.
        levels: Noise levels of the sampler's denoiser calls, falling, in [0, 1], [S], float32.
        calls: Denoiser calls with all rows, for `Editor.self_check`: the first and the last one, or all of them.
        trajectory: The sampler's path from noise to `latents`, [S + 1, G, N, C], float32; None unless it is kept.
        transitions: The numbers a, b and std of its steps x_next = a x + b v + std z, [S, 3]; None without noise.
    """

    conditioning: Conditioning
    latents: Tensor
    images: list[Image]
    levels: Tensor
    calls: list[Call]
    trajectory: Tensor | None = None
    transitions: Tensor | None = None


class Editor:
    """A diffusers pipeline with its family record: all that training and evaluation see of a model.

    Args:
        pipe: The pipeline; all its weights are frozen here.
        family: Its record.
        guidance: Guidance scale; None for the family's, which is that of training.
        pixels: Area of source and edit; None for the pipeline's own.
        text_tokens: Length to which prompts are padded, and above which they are refused; None for the pipeline's own,
            or its tokenizer's if that is less.

    Raises:
        UserError: The editor takes no guidance or no text length but there is one, the area is too small, or there is
            no denoiser.
    """

    replicas: ProcessGroup | None = None
    """Ranks with the same shard of a sharded denoiser as this one; None if there are no others."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        family: Family,
        *,
        guidance: float | None = None,
        pixels: int | None = None,
        text_tokens: int | None = None,
    ) -> None:
        if guidance is not None and family.guidance_arg is None:
            raise UserError(f"editor.guidance={guidance}: {family.name} takes no guidance; leave it out.")
        if text_tokens is not None and family.text_tokens is None:
            raise UserError(f"editor.text_tokens={text_tokens}: {family.name} has no such setting; leave it out.")
        if pixels is not None:
            check_area(family, pixels)
        denoiser = getattr(pipe, family.denoiser, None)
        if not isinstance(denoiser, nn.Module):
            raise UserError(f"this {family.pipeline} has no {family.denoiser!r}, so there is nothing to train.")
        self.pipe, self.family, self.pixels = pipe, family, pixels
        self.text_tokens = _text_limit(pipe, family) if text_tokens is None else text_tokens
        self.guidance = family.guidance if guidance is None else guidance
        self.denoiser: nn.Module = denoiser
        self.policies = Policies(denoiser)
        self.is_sharded = is_sharded(denoiser)  # ranks share the weights: all must make equally many calls
        for component in pipe.components.values():
            if isinstance(component, nn.Module):
                component.requires_grad_(False)
        pipe.set_progress_bar_config(disable=True)

    def add_policies(self, adapter: AdapterConfig, seed: int = 0) -> None:
        """Add the policies "default" and "old", equal to the reference; "default" is active afterwards.

        Args:
            adapter: Which weights to train; without targets, the family's get a LoRA.
            seed: Seed of the LoRA's initial weights.

        Raises:
            UserError: A target names no module of the denoiser.
        """
        if adapter.mode == "full":
            self.policies = ShardedPolicies(self.denoiser) if self.is_sharded else FullPolicies(self.denoiser)
        else:
            targets = self.family.lora_targets if adapter.targets is None else adapter.targets
            self.policies = LoraPolicies(self.denoiser, self.family.denoiser, adapter, targets, seed)

    def rollout(
        self,
        sample: EditSample,
        num_edits: int,
        *,
        steps: int,
        seed: int,
        scheduler: SchedulerName = "dpm2",
        noise: StepNoise | None = None,
        every_call: bool = False,
        keep_trajectory: bool = False,
        places: Sequence[int] | None = None,
    ) -> Rollout:
        """Make G = `num_edits` edits with the active policy; edit i depends on (seed, i) alone, not on G.

        A step is one denoiser call. Different seeds, at least 0, give independent noise. With `noise` for some steps,
        the others are Euler's. `every_call` keeps every denoiser call, not only the first and the last one;
        `keep_trajectory` keeps the latents of every step. `places` are the numbers i of the edits in a group whose
        others are not made here; None for 0 to G - 1.

        Raises:
            UserError: The source is too elongated for the editor's area, there are more source images than the editor
                takes, the instruction is longer than its text encoder takes, the sampler returns NaN or infinity, or it
                is to add noise but gets another velocity than a replay would give, by guidance.
        """
        images, recording = self.sample_recorded(
            sample,
            num_edits,
            steps=steps,
            seed=seed,
            scheduler=scheduler,
            noise=noise,
            every_call=every_call,
            places=places,
        )
        conditioning = recorder.condition(recording, self.family, num_edits)
        assert recording.sample is not None, "the scheduler has stepped"
        latents = recorder.tokens(recording.sample, self.family, conditioning.shape)
        if not latents.isfinite().all():
            raise UserError(
                f"sample {sample.key!r}: the sampler gave NaN or infinite latents; use at least 2 rollout.steps, and "
                "bfloat16 or float32 instead of float16."
            )
        rollout = Rollout(
            conditioning, latents, images, recorder.noise_levels(recording.times, self.family), recording.calls
        )
        if keep_trajectory:
            path = [recorder.tokens(each, self.family, conditioning.shape) for each in recording.samples]
            rollout = replace(rollout, trajectory=torch.stack([*path, latents]))
        if noise:
            numbers = recorded_transitions(recording, self.family, conditioning, self.pipe.scheduler, noise)
            rollout = replace(rollout, transitions=numbers)
        return rollout

    @torch.no_grad()
    def sample_recorded(
        self,
        sample: EditSample,
        num_edits: int,
        *,
        steps: int,
        seed: int,
        scheduler: SchedulerName,
        every_call: bool,
        noise: StepNoise | None = None,
        places: Sequence[int] | None = None,
    ) -> tuple[list[Image], Recording]:
        """The pipeline's images, and the recording of its denoiser and scheduler; arguments as in `rollout`."""
        arguments, size = self.arguments(sample, num_edits)
        places = range(num_edits) if places is None else places
        starts, seeds = [noise_generator(seed, i) for i in places], [derive_seed(seed, "step", i) for i in places]
        with (
            self.scoped(scheduler, size),
            temporarily(self.pipe, scheduler=noisy(self.pipe.scheduler, noise, seeds)),
            recorder.recording_of(self.denoiser, self.pipe.scheduler, self.family, every=every_call) as recording,
        ):
            images = self.pipe(**arguments, num_inference_steps=steps, generator=starts)[0]
        if not recording.steps or recording.sample is None:
            raise UserError(f"{self.family.pipeline} never called {self.family.denoiser!r}: is this its denoiser?")
        return [image if image.mode == "RGB" else image.convert("RGB") for image in images], recording

    def arguments(self, sample: EditSample, num_edits: int) -> tuple[dict[str, Any], Size | None]:
        """The pipeline's arguments for edits of a sample, and their size; errors as of `rollout`."""
        size, sources = self.size_of(sample.source, sample.key), self.sources_of(sample)
        self._check_length(sample, len(sources))
        arguments = self.family.call(
            sample, sources, num_edits, size=size, guidance=self.guidance, text_tokens=self.text_tokens
        )
        return arguments, size

    def velocity(self, conditioning: Conditioning, x_t: Tensor, t: Tensor) -> Tensor:
        """Velocity eps - x0 of the active policy at x_t = (1 - t) x0 + t eps, with gradients.

        Args:
            conditioning: Arguments of the denoiser for the group of all rows.
            x_t: Noised latents, [B, N, C].
            t: Noise levels in [0, 1], [B].

        Returns:
            [B, N, C], float32.
        """
        time = recorder.time_argument(conditioning, self.family, t)
        return recorder.replay(self.denoiser, conditioning, self.family, x_t, time).float()

    @torch.no_grad()
    def self_check(self, rollout: Rollout) -> list[float]:
        """Replay the recorded denoiser calls of a rollout under the same policy: results must be equal bit for bit.

        A family that caches the source's keys and values has a tolerance for the calls after the first.

        Returns:
            The largest difference of each call.

        Raises:
            EditorMismatch: A call differs.
        """
        family, shape, edits = self.family, rollout.conditioning.shape, len(rollout.images)
        differences = []
        for index, call in enumerate(rollout.calls):
            latents = call.arguments[family.latents]
            rows = recorder.conditional_rows(latents, family, edits)
            blocks = len(latents) // edits  # the conditional rows stand in for unconditional ones
            targets = recorder.target_of(latents, family, recorder.extent(family, shape))
            x_t = targets[rows].repeat(blocks, *[1] * len(shape))
            time = call.arguments[family.time][rows].repeat(blocks)
            velocity = recorder.replay(self.denoiser, rollout.conditioning, family, x_t, time)[:edits]
            original = recorder.predicted(call.output, family, shape)[rows]
            differences.append(largest_difference(velocity, original))
            limit = family.tolerance * float(original.abs().max()) if index else 0.0
            if not differences[-1] <= limit:
                arguments = recorder.arguments_for(rollout.conditioning, family, x_t, time)
                raise EditorMismatch(self._explain(differences[-1], call.arguments, arguments))
        return differences

    def _explain(self, difference: float, call: dict[str, Any], repeat: dict[str, Any]) -> str:
        """Which arguments differ between the recorded call and its replay, if any do."""
        sizes = {name: largest_difference(call[name], repeat.get(name)) for name in call}
        names = ", ".join(f"{name} by {size:.3g}" for name, size in sizes.items() if size > 0)
        hint = (
            f"arguments that differ: {names}; look at batch_args of the family record {self.family.name!r}"
            if names
            else "all arguments are equal, so the denoiser itself gives two answers: is another policy active than in "
            "the rollout, is dropout on, are kernels nondeterministic?"
        )
        problem = f"replaying a recorded denoiser call gives another velocity (largest difference {difference:.3g})"
        return f"{problem}; {hint}"

    def _check_length(self, sample: EditSample, sources: int) -> None:
        """Refuse an instruction that the pipeline would cut."""
        family, prompt = self.family, self.family.prompt_of(sample.instruction, sources)
        tokenizer = self.pipe.components.get(family.tokenizer)
        if faults := faults_of({sample.key: prompt}, family, tokenizer, self.text_tokens):
            raise UserError(f"item {sample.key!r}: instruction: {faults[sample.key]}")

    def sources_of(self, sample: EditSample) -> list[Image]:
        """The sample's source images as arguments of the pipeline."""
        sources, most = [sample.source, *sample.references], self.family.sources
        if most is not None and len(sources) > max(most, 1):
            raise UserError(
                f"sample {sample.key!r} has {len(sources)} source images, {self.family.name} takes {most}: drop its "
                "references, or use an editor that takes several (`editr1 editor list`)."
            )
        if most == 0:  # text to image: the source only has the shape
            return []
        sources = [source.convert("RGB") for source in sources]
        if not self.family.fitted or self.pixels is None:
            return sources
        sizes = [self.size_of(source, sample.key) for source in sources]
        return [source.resize(size, Resampling.LANCZOS) for source, size in zip(sources, sizes, strict=True) if size]

    def size_of(self, source: Image, key: str) -> Size | None:
        """Width and height of the edit: the editor's area in the source's shape; None for the pipeline's own choice."""
        if self.pixels is None:
            return None
        size = fit(source.size, self.pixels, self.family.multiple)
        if 0 in size:
            width, height = source.size
            raise UserError(
                f"sample {key!r}: a source of {width}x{height} is too elongated for "
                f"editor.pixels={self.pixels}; raise editor.pixels or crop the source."
            )
        return size

    @contextmanager
    def scoped(self, scheduler: SchedulerName, size: Size | None = None) -> Iterator[None]:
        """Inside, the pipeline has another scheduler and other source areas; afterwards, even on errors, its own."""
        module, pipe, family = sys.modules[type(self.pipe).__module__], self.pipe, self.family
        areas: dict[str, object] = {}
        if self.pixels is not None:
            areas |= dict.fromkeys(family.source_areas, self.pixels)
            areas |= {name: min(self.pixels, getattr(module, name)) for name in family.preview_areas}
            areas |= {name: _with_area(getattr(module, name), self.pixels) for name in family.area_functions}
        with ExitStack() as stack:
            stack.enter_context(temporarily(pipe, scheduler=SCHEDULERS[scheduler].from_config(pipe.scheduler.config)))
            stack.enter_context(temporarily(module, **areas))
            for name, value in (family.scoped(size) if family.scoped and size else {}).items():
                place, _, attribute = name.rpartition(":")
                stack.enter_context(temporarily(sys.modules[place] if place else pipe, **{attribute: value}))
            if family.mean_source:
                stack.enter_context(temporarily(pipe.vae, encode=_encoding_means(pipe.vae)))
            yield


def fit(size: Size, pixels: int, multiple: int) -> Size:
    """The bucket of a picture: width and height, multiples of `multiple`, nearest to its shape and to `pixels` of area.

    A side is 0 if the picture is too elongated for the area.
    """
    width, height = size
    exact = (pixels * width / height) ** 0.5
    return round(exact / multiple) * multiple, round(exact * height / width / multiple) * multiple


@contextmanager
def temporarily(target: object, **values: object) -> Iterator[None]:
    """Inside, existing attributes of `target` have other values; afterwards their own."""
    own = vars(target)
    before = {name: own[name] if name in own else getattr(target, name) for name in values}
    inherited = [name for name in values if name not in own and callable(before[name])]  # a method of its class
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            if name in inherited:
                delattr(target, name)
            else:
                setattr(target, name, value)


def noise_generator(seed: int, index: int) -> torch.Generator:
    """Source of the noise of edit `index`; on the CPU, so that it is the same on every device."""
    return torch.Generator("cpu").manual_seed(edit_seed(seed, index))


def _with_area(function: Callable[..., Any], pixels: int) -> Callable[..., Any]:
    """`function` (area, ratio) with a fixed area."""
    return lambda area, ratio: function(pixels, ratio)


def _encoding_means(vae: Any) -> Callable[..., Any]:
    """A VAE's `encode` with a posterior that samples its mean; it takes pictures of any dtype."""
    encode = vae.encode

    def encode_mean(pictures: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = encode(pictures.to(vae.dtype), *args, **kwargs)
        posterior = output[0]
        posterior.sample = lambda generator=None: posterior.mode().clone()
        return output

    return encode_mean


def _text_limit(pipe: DiffusionPipeline, family: Family) -> int | None:
    """The limit of the pipeline's last tokenizer, if the pipeline pads to more; else None."""
    if family.text_tokens is None:
        return None
    names = [name for name in pipe.components if name.startswith("tokenizer")]
    limit = getattr(pipe.components[names[-1]], "model_max_length", None) if names else None
    own = inspect.signature(pipe.__call__).parameters[family.text_tokens].default
    return limit if isinstance(own, int) and isinstance(limit, int) and limit < own else None
