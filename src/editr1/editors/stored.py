"""Pictures as edits: what training needs of an edit that lies on the disk, by the editor's own pipeline.

The pipeline is called as in a rollout, with a denoiser that computes nothing. So it encodes prompt and source and makes
the arguments of the first denoiser call, where it is stopped: the conditioning. An edit's latents are what the pipeline
makes of its picture as a source, if it puts sources beside the target in one layout. Whether that is so is checked
(`check_latents`): what the VAE would decode of such latents must be what it encoded the picture to.

Letters: G edits of a group, S noise levels, N tokens, C channels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from editr1.config.settings import SchedulerName
from editr1.data.samples import EditSample
from editr1.editors import recorder
from editr1.editors.editor import Editor, noise_generator, temporarily
from editr1.editors.recorder import Conditioning, Recording
from editr1.editors.sde import flow_levels
from editr1.errors import UserError

NEAR = 0.05
"""Largest difference of a round trip, relative to what made it (root mean square)."""
SHAPE = 0.1
"""Largest difference of two shapes that count as the same (logarithm of the ratios of width to height)."""
Step = Callable[[Tensor], Tensor]


class _Prediction(NamedTuple):
    """What a denoiser returns; some have a second result, which only they read."""

    sample: Any
    other: None = None


class _Enough(Exception):
    """The pipeline has made what was wanted of it."""


def prepare(editor: Editor, sample: EditSample, steps: int, scheduler: SchedulerName) -> tuple[Conditioning, Tensor]:
    """The conditioning of a sample's edits, and the noise levels [S] that a sampler of `steps` steps visits.

    Raises:
        UserError: As of `Editor.rollout`.
    """
    _, recording, levels = _call(editor, sample, 1, steps, scheduler, None)
    return recorder.condition(recording, editor.family, 1), levels


def encode(editor: Editor, sample: EditSample, picture: Image) -> Tensor:
    """The latents of a picture as an edit of the sample, [1, N, C], float32.

    Raises:
        UserError: It has not the shape of the sample's edits, or the editor takes no source, or takes it elsewhere.
    """
    if editor.family.sources == 0:
        raise UserError(f"{editor.family.name} makes pictures of text alone: it encodes no picture, so {ONLINE}")
    picture = as_edit(editor, sample, picture)
    if editor.size_of(picture, sample.key) not in (None, picture.size):  # an elongated size is rounded to another one
        picture = picture.resize(sample.source.size, Resampling.LANCZOS)  # and this one to that of the edit
    conditioning, _ = prepare(editor, replace(sample, source=picture, references=()), 2, "euler")
    return _own_latents(editor, conditioning)


@torch.no_grad()
def decode(editor: Editor, sample: EditSample, conditioning: Conditioning, latents: Tensor) -> list[Image]:
    """The pictures of edits of the sample with these latents [G, N, C], as the pipeline decodes its own."""

    def ready(own: Tensor) -> Tensor:
        return recorder.as_sample(latents, own, editor.family, conditioning.shape)

    return _call(editor, sample, len(latents), 2, "euler", ready)[0]


def as_edit(editor: Editor, sample: EditSample, picture: Image) -> Image:
    """The picture in the size of the sample's edits; a UserError if it has another shape."""
    size = editor.size_of(sample.source, sample.key)
    if size is None or picture.size == size:
        return picture
    if abs(log(picture.width * size[1] / (picture.height * size[0]))) > SHAPE:
        raise UserError(
            f"item {sample.key!r}: a picture of {picture.width}x{picture.height} has another shape than edits of its "
            f"source, {size[0]}x{size[1]}; crop it"
        )
    return picture.resize(size, Resampling.LANCZOS)


def check_latents(editor: Editor, sample: EditSample, picture: Image) -> None:
    """Refuse an editor whose sources are not in the layout of its edits, by the round trip of one picture.

    The VAE must be given the picture, and after the way back what it made of it.

    Raises:
        UserError: The way there or back is another one.
    """
    picture = as_edit(editor, sample, picture)
    with _spied(editor) as seen:
        latents = encode(editor, sample, picture)
        conditioning, _ = prepare(editor, sample, 2, "euler")
        made = decode(editor, sample, conditioning, latents)
    own = len(seen["encoded"])  # some decode the source too
    back = seen["decoded"][-own:] if editor.family.target == "last" else seen["decoded"][:own]
    given = np.asarray(picture, np.float32).transpose(2, 0, 1) / 127.5 - 1  # 3 H W
    parts = {"the picture": (torch.from_numpy(given), seen["pixels"][0, :3]), "its latents": (seen["encoded"], back)}
    for name, (there, back) in parts.items():
        if made[0].size != picture.size or there.numel() != back.numel() or not _are_near(there, back):
            raise _refusal(editor, f"{name} did not come back from the way to its VAE")


ONLINE = "it cannot be trained on stored pictures; train it online, with a judge"


def _refusal(editor: Editor, why: str) -> UserError:
    return UserError(f"{editor.family.name}: {why}, so {ONLINE}")


def _are_near(there: Tensor, back: Tensor) -> bool:
    there, back = (each.detach().float().cpu().flatten() for each in (there, back))
    return bool((there - back).square().mean().sqrt() <= NEAR * there.square().mean().sqrt())


def _own_latents(editor: Editor, conditioning: Conditioning) -> Tensor:
    """The latents [1, N, C] of the only source in a denoiser's arguments."""
    family, shape, source = editor.family, conditioning.shape, conditioning.source
    if isinstance(source, list) and len(source) == 1 and source[0].shape == shape:
        return recorder.tokens(source[0][None], family, shape)
    extent = recorder.extent(family, shape)
    there = source.shape[family.axis] if isinstance(source, Tensor) else 0
    if there < extent or (there > extent and family.axis != -1):  # channels of a mask may follow
        raise _refusal(editor, "its denoiser gets the source in another layout than the edit")
    return recorder.tokens(source.narrow(family.axis, 0, extent), family, shape)


@torch.no_grad()
def _call(
    editor: Editor, sample: EditSample, edits: int, steps: int, scheduler: SchedulerName, ready: Step | None
) -> tuple[list[Image], Recording, Tensor]:
    """Call the pipeline without its denoiser; its pictures, the recording, and the sampler's noise levels.

    Args:
        editor: The editor.
        sample: What is edited.
        edits: G.
        steps: Steps of the sampler.
        scheduler: The sampler.
        ready: Gives the result of every step for the latents that the step gets; None ends the call at the first.
    """
    arguments, size = editor.arguments(sample, edits)
    with editor.scoped(scheduler, size):
        own = editor.pipe.scheduler

        def step(model_output: Any, timestep: Any, latents: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor]:
            if ready is None:
                recording.sample = latents
                raise _Enough
            return (ready(latents),)

        with (
            temporarily(own, step=step),
            recorder.recording_of(editor.denoiser, own, editor.family) as recording,
            _idle(editor),
        ):
            starts = [noise_generator(0, index) for index in range(edits)]
            try:
                images = editor.pipe(**arguments, num_inference_steps=steps, generator=starts)[0]
            except _Enough:
                images = []
        levels = flow_levels(own, own.sigmas)[:-1].float()
    return [image.convert("RGB") for image in images], recording, levels


@contextmanager
def _idle(editor: Editor) -> Iterator[None]:
    """Inside, the denoiser returns its target latents without computing anything."""
    signature = inspect.signature(editor.denoiser.forward)

    def forward(*args: Any, **kwargs: Any) -> _Prediction:
        latents = {**signature.bind_partial(*args).arguments, **kwargs}[editor.family.latents]
        if isinstance(latents, list):
            latents = [row[-1] if isinstance(row, list) else row for row in latents]
        return _Prediction(latents)

    with temporarily(editor.denoiser, forward=forward):
        yield


@contextmanager
def _spied(editor: Editor) -> Iterator[dict[str, Tensor]]:
    """What the VAE gets and makes inside: "pixels" and what they are "encoded" to, of the first call; "decoded"."""
    vae, seen = editor.pipe.vae, dict[str, Tensor]()
    encode, decode = vae.encode, vae.decode

    def encoded(pictures: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = encode(pictures, *args, **kwargs)
        posterior = output[0]
        seen.setdefault("pixels", pictures)
        seen.setdefault("encoded", posterior if isinstance(posterior, Tensor) else posterior.mode())
        return output

    def decoded(latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen["decoded"] = latents
        return decode(latents, *args, **kwargs)

    with temporarily(vae, encode=encoded, decode=decoded):
        yield seen
