"""What differs between editors: one record per diffusers pipeline class. Everything else is the same for all of them.

A record is data: `editr1 editor probe` derives it for a pipeline that is not listed in `editors/records.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL.Image import Image

from editr1.data.samples import EditSample

DENOISERS = ("transformer", "unet", "denoiser", "dit")
"""Names that diffusers pipelines give their denoiser."""
Size = tuple[int, int]
End = Literal["first", "last"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one pipeline class is called, and how its denoiser call is taken apart.

    The call of the pipeline:

    Attributes:
        name: short name for people.
        pipeline: class name, as in model_index.json.
        image: the argument that takes the source; None for text to image.
        sources: how many source images it takes at most; None for any number.
        listed: the source is passed in a list, also where it is one.
        prompt: how the instruction is written; None: as it is.
        tag: stands before the instruction once for each source; "{}" is the source's number, from 1.
        negative: the negative prompt, passed where guidance makes it count.
        guidance_arg: the argument for the guidance scale; None where there is none.
        guidance: its default; at most 1 where it switches classifier-free guidance off, None leaves the argument out.
        settings: other arguments of every call.
        sized: arguments that follow from the size (width, height) of the edit.
        takes_size: it has `width` and `height`.
        repeats: it has `num_images_per_prompt`; otherwise prompts and sources are repeated in lists.
        text_tokens: the argument for the number of text tokens that prompts are padded or cut to.
        multiple: width and height of source and edit are multiples of this.
        fitted: the source is resized to the edit's area before the call, since the pipeline takes it as it is.
        source_areas: constants in the pipeline's module that fix the area, in pixels, of the encoded source.
        preview_areas: likewise for the copy that a text encoder sees; never enlarged.
        area_functions: functions (area, ratio) in the pipeline's module that are called with a fixed area.
        scoped: attributes that follow from the size of the edit: of the pipeline, or "module:name" of a module.
        mean_source: the pipeline draws the source's latents at random, anew for each edit, or fixes their dtype; their
            mean in the VAE's dtype is taken instead.

    The call of the denoiser:

    Attributes:
        denoiser: its name among the pipeline's components.
        latents: the argument that holds the noised target, alone or beside the source.
        time: the argument for the time: `time_scale` * t + `time_shift` for noise level t in [0, 1].
        sign: +1 where it predicts the velocity eps - x0, -1 where x0 - eps.
        axis: of `latents`, along which target and source stand.
        target: which end of that axis is the target.
        length: places of the target along the axis, or how the arguments tell them; None: as many as the scheduler
            steps.
        batch_args: arguments with a batch dimension, besides latents and time; nests of tensors too; each may be None.
        list_args: arguments that are lists with one entry a row.
        expand: (recorded arguments, B) -> those of B rows that neither of the two describes.
        conditional: under guidance in one call, which rows saw the instruction.
        tolerance: largest relative difference of a replay; above 0 only where the pipeline itself computes the steps
            after the first in another way (a cache of the source's keys and values).
        lora_targets: names of the modules that get a LoRA, as the published recipe chose them.
    """

    name: str
    pipeline: str
    image: str | None = "image"
    sources: int | None = 1
    listed: bool = False
    prompt: Callable[[str], str] | None = None
    tag: str = ""
    negative: str | None = None
    guidance_arg: str | None = None
    guidance: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    sized: Callable[[Size], dict[str, Any]] | None = None
    takes_size: bool = True
    repeats: bool = True
    text_tokens: str | None = "max_sequence_length"
    multiple: int = 16
    fitted: bool = False
    source_areas: tuple[str, ...] = ()
    preview_areas: tuple[str, ...] = ()
    area_functions: tuple[str, ...] = ()
    scoped: Callable[[Size], dict[str, Any]] | None = None
    mean_source: bool = False
    denoiser: str = "transformer"
    latents: str = "hidden_states"
    time: str = "timestep"
    time_scale: float = 1.0
    time_shift: float = 0.0
    sign: Literal[1, -1] = 1
    axis: int = 1
    target: End = "first"
    length: int | Callable[[dict[str, Any]], int] | None = None
    batch_args: tuple[str, ...]
    list_args: tuple[str, ...] = ()
    expand: Callable[[dict[str, Any], int], dict[str, Any]] | None = None
    conditional: End = "first"
    tolerance: float = 0.0
    lora_targets: tuple[str, ...]

    def call(
        self,
        sample: EditSample,
        sources: list[Image],
        edits: int,
        *,
        size: Size | None = None,
        guidance: float | None = None,
        text_tokens: int | None = None,
    ) -> dict[str, Any]:
        """The pipeline's arguments for `edits` edits of a sample with the given, resized sources."""
        tags = "".join(self.tag.format(number) for number in range(1, len(sources) + 1))
        text = tags + sample.instruction
        arguments: dict[str, Any] = {"prompt": self.prompt(text) if self.prompt else text, **self.settings}
        if self.image is not None and sources:
            arguments[self.image] = sources if self.listed or len(sources) > 1 else sources[0]
        if self.repeats:
            arguments["num_images_per_prompt"] = edits
        else:
            arguments = {k: [v] * edits if k in ("prompt", self.image) else v for k, v in arguments.items()}
        if size is not None:
            arguments |= dict(zip(("width", "height"), size, strict=True)) if self.takes_size else {}
            arguments |= self.sized(size) if self.sized else {}
        if self.guidance_arg is not None and guidance is not None:
            arguments[self.guidance_arg] = guidance
            if self.negative is not None and guidance > 1:
                arguments["negative_prompt"] = self.negative
        if self.text_tokens is not None and text_tokens is not None:
            arguments[self.text_tokens] = text_tokens
        return arguments
