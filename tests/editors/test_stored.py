"""Pictures as edits, on every family: conditioning without a denoiser call, latents by the editor's own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1.config.settings import MemoryConfig
from editr1.editors import stored
from editr1.editors.editor import Editor, temporarily
from editr1.editors.families import FAMILIES
from editr1.editors.open import apply_memory, open_editor
from editr1.editors.recorder import largest_difference
from editr1.errors import UserError
from editr1.toy.assets import locate
from editr1.toy.world import ToyDataset
from tests.tiny import tiny_sample

PIXELS = 64 * 96
SAMPLE, OTHER = tiny_sample(size=(96, 64)), tiny_sample(size=(96, 64), seed=5)
REFUSED = {
    "BriaFibo2Pipeline": "gets the source in another layout than the edit",
    "OmniGenPipeline": "gets the source in another layout than the edit",
    "FluxPipeline": "makes pictures of text alone",
    "QwenImagePipeline": "makes pictures of text alone",
    "StableDiffusion3Pipeline": "makes pictures of text alone",
}

Paths = Callable[[str], Path]


def never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the denoiser was called")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_stored_edit_is_as_one_that_was_made_without_a_denoiser_call_or_its_family_is_refused(
    pipeline_path: Paths, name: str
) -> None:
    editor = open_editor(pipeline_path(name), pixels=PIXELS)
    rollout = editor.rollout(SAMPLE, 1, steps=3, seed=1, scheduler="dpm2")
    with temporarily(next(editor.denoiser.children()), forward=never):
        conditioning, levels = stored.prepare(editor, SAMPLE, 3, "dpm2")
        pictures = stored.decode(editor, SAMPLE, conditioning, rollout.latents)
    for field in fields(conditioning):
        own, theirs = (getattr(each, field.name) for each in (conditioning, rollout.conditioning))
        assert largest_difference(own, theirs) == 0, field.name
    torch.testing.assert_close(levels, rollout.levels, rtol=0, atol=1e-6)
    assert np.array_equal(np.array(pictures[0]), np.array(rollout.images[0]))
    if name in REFUSED:
        with pytest.raises(UserError, match=f"{REFUSED[name]}.*cannot be trained on stored pictures"):
            stored.check_latents(editor, SAMPLE, OTHER.source)
        return
    stored.check_latents(editor, SAMPLE, OTHER.source)  # what the VAE decodes is what it encoded the picture to
    latents = stored.encode(editor, SAMPLE, OTHER.source)
    assert latents.shape == rollout.latents.shape and latents.dtype == torch.float32
    assert not torch.equal(latents, stored.encode(editor, SAMPLE, SAMPLE.source))


@pytest.mark.parametrize("name", ["qwen-image-edit", "flux-kontext"])
def test_a_toy_editor_decodes_nearly_the_picture_that_it_encoded(name: str) -> None:
    editor = open_editor(Path(locate(f"toy:{name}")), pixels=64 * 64)
    item, picture = ToyDataset("rl", 4)[0], ToyDataset("rl", 4)[3].source
    conditioning, _ = stored.prepare(editor, item, 2, "euler")
    decoded = stored.decode(editor, item, conditioning, stored.encode(editor, item, picture))[0]
    there, back, other = (np.asarray(each, np.float64) / 255 for each in (picture, decoded, item.source))
    assert np.abs(there - back).mean() < 0.03 < 0.1 < np.abs(other - back).mean()


def test_an_editor_whose_latents_do_not_come_back_is_refused(
    tiny_editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = tiny_sample()
    stored.check_latents(tiny_editor, sample, sample.source)
    encode = stored.encode
    monkeypatch.setattr(stored, "encode", lambda *some: 1.1 * encode(*some))
    with pytest.raises(UserError, match="its latents did not come back from the way to its VAE"):
        stored.check_latents(tiny_editor, sample, sample.source)


def test_a_picture_is_brought_to_the_size_of_the_edit_but_not_into_another_shape(tiny_editor: Editor) -> None:
    sample = tiny_sample()
    assert stored.as_edit(tiny_editor, sample, Image.new("RGB", (130, 128))).size == (64, 64)
    with pytest.raises(UserError, match="128x64 has another shape than edits of its source, 64x64; crop it"):
        stored.as_edit(tiny_editor, sample, Image.new("RGB", (128, 64)))


def test_an_elongated_picture_has_the_latents_of_an_edit_of_its_size(tiny_editor_path: Path) -> None:
    editor, sample = open_editor(tiny_editor_path, pixels=96 * 96), tiny_sample(size=(450, 100))
    size = editor.size_of(sample.source, "")
    assert size == (192, 32) and editor.size_of(Image.new("RGB", size), "") != size
    made = editor.rollout(sample, 1, steps=2, seed=0)
    latents = stored.encode(editor, sample, made.images[0])
    assert latents.shape == made.latents.shape == (1, 24, 16)
    stored.check_latents(editor, sample, tiny_sample(size=size).source)


def test_the_cache_of_encodings_serves_a_second_epoch(tiny_editor_path: Path, tmp_path: Path) -> None:
    editor, sample = open_editor(tiny_editor_path, pixels=64 * 64), tiny_sample()
    plain = stored.encode(editor, sample, sample.source)
    calls: list[str] = []
    for name, part in (("text", editor.pipe.text_encoder), ("picture", editor.pipe.vae.encoder)):
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    apply_memory(editor, MemoryConfig(cache=tmp_path))
    for epoch in range(2):
        latents = [stored.encode(editor, sample, each) for each in (sample.source, OTHER.source.resize((64, 64)))]
        assert torch.equal(latents[0], plain)
        stored.prepare(editor, sample, 3, "euler")
        assert {*calls} == ({"text", "picture"} if epoch == 0 else set())
        calls.clear()
