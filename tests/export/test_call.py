"""The code of a card, run in a stock pipeline, makes the very edit of `editr1 edit`, whatever the family."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline
from diffusers.pipelines.joyimage import image_processor

from editr1.data.samples import EditSample
from editr1.editors.editor import _encoding_means, noise_generator, temporarily
from editr1.editors.families import FAMILIES
from editr1.editors.one_frame import skip_absent_frames
from editr1.editors.open import inference_guidance, open_named_editor
from editr1.export.call import INSTRUCTION, Call
from tests.editors.conftest import BUILDERS
from tests.tiny import tiny_sample

PIXELS = 64 * 96
CPU = torch.device("cpu")


def build(name: str, folder: Path) -> str:
    """The folder of a tiny pipeline with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BUILDERS[name]().save_pretrained(folder)
    return str(folder)


def run(call: Call, pipe: Any) -> np.ndarray:
    """The edit that the card's code makes of source.png, with two steps and fixed noise."""
    code = "\n".join([*call.imports(), *call.lines()])
    code = code.replace("num_inference_steps=28", "num_inference_steps=2, generator=[noise]")
    values: dict[str, Any] = {"pipe": pipe, "noise": noise_generator(0, 0)}
    exec(code, values)
    return np.array(values["edit"].convert("RGB"))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_code_makes_the_edit_that_editr1_makes_at_the_area_of_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, family = build(name, tmp_path / "base"), FAMILIES[name]
    size = (150, 90) if family.image else (100, 100)  # of another area than the edit; text to image is square
    sample = EditSample("card", tiny_sample(size=size).source, INSTRUCTION)
    sample.source.save("source.png")
    editor = open_named_editor(path, pixels=PIXELS, device=CPU)
    (want,) = editor.rollout(sample, 1, steps=2, seed=0, scheduler="euler").images
    pipe = DiffusionPipeline.from_pretrained(path)
    skip_absent_frames(pipe.components.get("vae"))  # as ours, whose results differ by rounding
    module = sys.modules[type(pipe).__module__]
    for constant in (*family.source_areas, *family.preview_areas, *family.area_functions):
        monkeypatch.setattr(module, constant, getattr(module, constant))  # it is set back after the test
    monkeypatch.setattr(image_processor, "BUCKETS", image_processor.BUCKETS)
    if family.mean_source:  # the stock pipeline draws the source's latents at random
        monkeypatch.setattr(pipe.vae, "encode", _encoding_means(pipe.vae))
    edit = run(Call(family, inference_guidance(path), PIXELS, editor.text_tokens), pipe)
    assert want.size == ((96, 64) if family.image else (80, 80)) or not family.takes_size
    assert np.array_equal(edit, np.array(want))


def test_without_an_area_kontext_gets_the_shape_of_the_source_as_in_editr1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `width` and `height` the stock pipeline makes a square."""
    monkeypatch.chdir(tmp_path)
    path = build("FluxKontextPipeline", tmp_path / "base")
    sample = EditSample("card", tiny_sample(size=(150, 90)).source, INSTRUCTION)
    sample.source.save("source.png")
    calls: list[dict[str, Any]] = []

    def record(self: Any, **arguments: Any) -> None:
        calls.append(arguments)
        raise InterruptedError

    editor = open_named_editor(path, device=CPU)
    guidance = inference_guidance(path)
    assert guidance == 3.5
    with temporarily(FluxKontextPipeline, __call__=record):
        with pytest.raises(InterruptedError):
            editor.rollout(sample, 1, steps=2, seed=0, scheduler="euler")
        with pytest.raises(InterruptedError):
            run(Call(FAMILIES["FluxKontextPipeline"], guidance, None, editor.text_tokens), editor.pipe)
    ours, card = calls
    assert np.array_equal(np.array(ours.pop("image")), np.array(card.pop("image")))
    assert ours.pop("num_images_per_prompt") == 1
    del ours["generator"], card["generator"]
    assert ours == card and (card["width"], card["height"]) == (150, 90)
