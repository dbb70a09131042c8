"""What differs between editors: one record per diffusers pipeline class. Everything else is the same for all of them.

A record is data: `editr1 editor probe` derives it for a pipeline that is not listed in `editors/families.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from PIL.Image import Image

from editr1.data.samples import EditSample
from editr1.errors import UserError

DENOISERS = ("transformer", "unet", "denoiser", "dit")
"""Names of the denoiser in diffusers pipelines."""
AREA_MAX = 100_000_000
"""Largest area of an edit in pixels."""
LARGE = 1_000_000_000
"""Parameters from which a text encoder is sharded too, as the denoiser is."""
Size = tuple[int, int]
End = Literal["first", "last"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one pipeline class is called, and how its denoiser call is taken apart.

    The call of the pipeline:

    Attributes:
        name: Short name for people.
        pipeline: Class name, as in model_index.json.
        image: Argument for the source; None for text to image.
        sources: Largest number of source images; None for any number.
        listed: Whether a single source is passed in a list too.
        prompt: Changes the instruction into the prompt; None if they are the same.
        tag: Text before the instruction, once per source; "{}" is the source's number, from 1.
        negative: Negative prompt, passed if guidance uses it.
        guidance_arg: Argument for the guidance scale; None if there is none.
        guidance: Guidance scale of training, unless a run sets another; at most 1 if that switches classifier-free
            guidance off; None leaves the argument out. Outside of training it is the pipeline's own default
            (`editors.open.inference_guidance`).
        settings: Other arguments of every call.
        training_settings: More of them in training; outside of it the pipeline's own defaults hold (`for_inference`).
        sized: Arguments that follow from the size (width, height) of the edit.
        takes_size: Whether the pipeline has `width` and `height`.
        source_shape: Whether it gets the source's `width` and `height` where no size is set: it scales them to its own
            area, and without them its edits are square.
        repeats: Whether it has `num_images_per_prompt`; if not, prompts and sources are repeated in lists.
        text_tokens: Argument for the number of text tokens to which prompts are padded or cut.
        text_limit: Tokens at which the pipeline cuts a prompt unless `text_tokens` is set; None if it cuts none.
        tokenizer: Name of the component whose tokens these are.
        tokenized: Texts that the pipeline's tokenizer gets for a prompt, with the parts of its template that count
            against the limit; None if it gets the prompt alone.
        multiple: Width and height of source and edit are multiples of this.
        fitted: Whether the source is resized to the edit's area before the call, as the pipeline does not resize it.
        source_areas: Constants in the pipeline's module for the area, in pixels, of the encoded source.
        preview_areas: Likewise for the copy that a text encoder sees; it is never enlarged.
        area_functions: Functions (area, ratio) in the pipeline's module; their area is replaced by the edit's.
        scoped: Attributes that follow from the size of the edit, of the pipeline, or as "module:name" of a module.
        mean_source: Whether the mean of the source's latents is taken, in the VAE's dtype, as the pipeline draws them
            at random for each edit or fixes their dtype.

    The call of the denoiser:

    Attributes:
        denoiser: Name among the pipeline's components.
        latents: Argument for the noised target, alone or beside the source.
        time: Argument for the time: `time_scale` * t + `time_shift` for noise level t in [0, 1].
        sign: +1 if the denoiser predicts the velocity eps - x0, -1 if x0 - eps.
        axis: Axis of `latents` along which target and source are joined.
        target: End of that axis at which the target is.
        length: Places of the target along the axis, or a function of the arguments; None: as many as the scheduler
            steps.
        batch_args: Arguments with a batch dimension, besides latents and time, also nests of tensors; each may be None.
        list_args: Arguments that are lists with one entry per row.
        expand: Function (recorded arguments, B) -> arguments of B rows that neither of the two describes.
        conditional: Rows that see the instruction, if guided rows share one call.
        tolerance: Largest relative difference of a replay; above 0 only if the pipeline itself computes the steps after
            the first in another way (a cache of the source's keys and values).
        lora_targets: Names of the modules that get a LoRA, as in the published recipe.
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
    training_settings: Mapping[str, Any] = field(default_factory=dict)
    sized: Callable[[Size], dict[str, Any]] | None = None
    takes_size: bool = True
    source_shape: bool = False
    repeats: bool = True
    text_tokens: str | None = "max_sequence_length"
    text_limit: int | None = None
    tokenizer: str = "tokenizer"
    tokenized: Callable[[str], Sequence[str]] | None = None
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
        """The pipeline's arguments for `edits` edits of a sample; `sources` are resized already."""
        settings = {**self.settings, **self.training_settings}
        arguments: dict[str, Any] = {"prompt": self.prompt_of(sample.instruction, len(sources)), **settings}
        if self.image is not None and sources:
            arguments[self.image] = sources if self.listed or len(sources) > 1 else sources[0]
        if self.repeats:
            arguments["num_images_per_prompt"] = edits
        else:
            arguments = {k: [v] * edits if k in ("prompt", self.image) else v for k, v in arguments.items()}
        if size is not None:
            arguments |= dict(zip(("width", "height"), size, strict=True)) if self.takes_size else {}
            arguments |= self.sized(size) if self.sized else {}
        elif self.source_shape:
            arguments |= dict(zip(("width", "height"), sample.source.size, strict=True))
        if self.guidance_arg is not None and guidance is not None:
            arguments[self.guidance_arg] = guidance
            if self.negative is not None and guidance > 1:
                arguments["negative_prompt"] = self.negative
        if self.text_tokens is not None and text_tokens is not None:
            arguments[self.text_tokens] = text_tokens
        return arguments

    def prompt_of(self, instruction: str, sources: int) -> str:
        """The prompt of an instruction about a number of source images."""
        text = "".join(self.tag.format(number) for number in range(1, sources + 1)) + instruction
        return self.prompt(text) if self.prompt else text


def for_inference(family: Family) -> Family:
    """The record for edits outside of training."""
    return replace(family, training_settings={})


def check_area(family: Family, pixels: int) -> None:
    """Refuse an area that is smaller than the smallest picture of an editor, or that no machine can hold."""
    side = family.multiple
    if pixels > AREA_MAX:
        raise UserError(f"editor.pixels={pixels}: give at most {AREA_MAX}, such as 262144 for 512x512")
    if pixels < side * side:
        raise UserError(
            f"editor.pixels={pixels}: {family.name} makes pictures of at least {side}x{side}, which is {side * side} "
            "pixels; give more, such as 262144 for 512x512"
        )
