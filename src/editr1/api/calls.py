"""The calls of `from editr1 import ...`: an editor and a judge by their names, edits, and scores of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image

from editr1.config.settings import SchedulerName
from editr1.data.samples import EditSample
from editr1.devices import pick_device
from editr1.editors.editor import Editor
from editr1.editors.open import open_named_editor
from editr1.editors.samplers import SCHEDULERS
from editr1.errors import UserError
from editr1.judges import open as judges
from editr1.judges.base import Judge, JudgeRequest, Score, complete_scores
from editr1.training.checkpoint import trained_weights


def open_editor(
    name: str,
    *,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    guidance: float | None = None,
    pixels: int | None = None,
    device: str = "auto",
) -> Editor:
    """An editor that makes edits as its own pipeline does, on a GPU if there is one.

    Args:
        name: Folder or hub name of a diffusers pipeline, "toy", "toy:NAME", or the YAML of a run.
        lora: A run, "RUN@best", one of its checkpoints, or the file or folder of any LoRA; None for the editor alone.
        lora_scale: Factor on what the LoRA adds to the weights.
        guidance: Guidance scale; None for the default of the pipeline's own call.
        pixels: Area of an edit; None for the editor's own.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        UserError: There is no such editor, LoRA or device.
    """
    weights = None if lora is None else trained_weights(Path(lora))
    where = pick_device(device)
    return open_named_editor(name, weights, lora_scale=lora_scale, guidance=guidance, pixels=pixels, device=where)


def open_judge(name: str, *, device: str = "auto") -> Judge:
    """A judge, on a GPU if there is one.

    Args:
        name: "toy", a model's folder or hub name, a YAML file, or "openai:URL?model=NAME"; settings of the judge may
            follow a "?", as in "toy?method=yes_no".
        device: "auto", "cpu", "cuda" or "cuda:N", of a judge in this process.

    Raises:
        UserError: There is no such judge or device, or a setting is wrong.
    """
    return judges.open_judge(judges.parse_judge(name), pick_device(device))


def rollout(
    editor: Editor,
    sample: EditSample,
    edits: int = 1,
    *,
    steps: int = 28,
    seed: int = 0,
    scheduler: SchedulerName = "euler",
) -> list[Image]:
    """Edits of a sample; edit i depends on (seed, i) alone.

    Args:
        editor: Its active weights make them: in training, those that are trained.
        sample: What is edited.
        edits: How many.
        steps: Denoiser calls per edit, at least 2.
        seed: Seed of the noise, at least 0.
        scheduler: "euler", or "dpm2", with which training makes good edits in 6 steps.

    Raises:
        UserError: A number is too small, there is no such scheduler, or the editor does not take the sample.
    """
    for name, value, least in (("edits", edits, 1), ("steps", steps, 2), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"rollout: {name}={value} must be at least {least}")
    if scheduler not in SCHEDULERS:
        raise UserError(f"rollout: there is no scheduler {scheduler!r}; there are {', '.join(SCHEDULERS)}")
    return editor.rollout(sample, edits, steps=steps, seed=seed, scheduler=scheduler).images


def score(judge: Judge, sample: EditSample, edits: Sequence[Image]) -> list[Score]:
    """One score per edit of a sample, in their order: a value in [0, 1], or None and the reason.

    Raises:
        UserError: A judge of your own gives something else.
    """
    return complete_scores(judge, [JudgeRequest(sample, edit) for edit in edits])
