"""Every family: the probe agrees, rollouts are the stock pipeline's, replays are bit-equal, steps train."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.flux import pipeline_flux_kontext
from torch import Tensor

from editr1.algorithms.base import Rows
from editr1.algorithms.nft import NFT
from editr1.config.settings import AdapterConfig
from editr1.editors import families
from editr1.editors.catalogue import UNSUPPORTED, catalogue
from editr1.editors.editor import Editor, Rollout, noise_generator
from editr1.editors.families import FAMILIES
from editr1.editors.lora.files import load_lora_into
from editr1.editors.open import open_editor, open_named_editor
from editr1.editors.probe import derive_family, probe
from editr1.editors.recorder import conditional_rows, extent, target_of
from editr1.errors import UserError
from tests.tiny import tiny_sample

PIXELS = 64 * 96
SAMPLE = tiny_sample(size=(96, 64))
UNDERIVABLE = {  # what only a record can say
    "BriaFiboEditPipeline": "its prompt must be JSON",
    "JoyImageEditPipeline": "it makes about a megapixel whatever it is asked, and draws the source's latents at random",
    "JoyImageEditPlusPipeline": "it takes lists of prompts and of lists of images",
    "Kandinsky5I2IPipeline": "num_images_per_prompt fails",
    "OmniGenPipeline": "its images are named in the prompt",
    "ZImageOmniPipeline": "it encodes the source in bfloat16",
}

every_family = pytest.mark.parametrize("name", sorted(FAMILIES))
Paths = Callable[[str], Path]


def load(pipeline_path: Paths, name: str) -> Editor:
    return open_editor(pipeline_path(name), pixels=PIXELS)


def roll(editor: Editor, edits: int = 2, *, every_call: bool = False) -> Rollout:
    return editor.rollout(SAMPLE, edits, steps=3, seed=1, scheduler="euler", every_call=every_call)


def noised(rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
    """(x0, x_t, t) of a training batch of another size than the group."""
    x0 = rollout.latents[[0, 1, 0]]
    t = torch.tensor([0.3, 0.6, 0.9])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    return x0, (1 - t[:, None, None]) * x0 + t[:, None, None] * eps, t


def nft_step(editor: Editor, lr: float) -> tuple[Rollout, Tensor, Tensor]:
    """One DiffusionNFT step on a rollout; the velocity before and after."""
    rollout = roll(editor)
    x0, x_t, t = noised(rollout)
    optimizer = torch.optim.SGD([weight for _, weight in editor.policies.parameters()], lr=lr)
    v = editor.velocity(rollout.conditioning, x_t, t)
    with torch.no_grad(), editor.policies.using("reference"):
        v_ref = editor.velocity(rollout.conditioning, x_t, t)
    rows = Rows(x0, x_t, t, advantages=torch.tensor([4.0, -3.0, 1.0]))
    NFT(kl=1e-4).loss(rows, {"default": v, "old": v.detach(), "reference": v_ref})[0].backward()
    optimizer.step()
    return rollout, v.detach(), editor.velocity(rollout.conditioning, x_t, t).detach()


@every_family
def test_the_probe_agrees_with_the_record_and_every_call_is_replayed_bit_for_bit(
    pipeline_path: Paths, name: str
) -> None:
    found = probe(load(pipeline_path, name).pipe, record=FAMILIES[name], pixels=PIXELS)
    assert found.error is None
    assert found.disagreements == []
    assert found.differences == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - UNDERIVABLE.keys()))
def test_the_record_can_be_derived_without_knowing_it(
    pipeline_path: Paths, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is not known to avoid it scales every source to one of these, of a megapixel.
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", [(96, 64), (64, 96)])
    pipe = load(pipeline_path, name).pipe
    family = derive_family(pipe, pixels=PIXELS)
    known = FAMILIES[name]
    for field in ("latents", "time", "time_scale", "time_shift", "sign", "target", "conditional"):
        assert getattr(family, field) == getattr(known, field), field
    editor = Editor(pipe, family, pixels=PIXELS)
    assert editor.self_check(roll(editor, 3, every_call=True)) == [0.0, 0.0, 0.0]


@every_family
def test_a_rollout_is_what_the_stock_pipeline_gives(pipeline_path: Paths, name: str) -> None:
    editor = load(pipeline_path, name)
    rollout = roll(editor)
    size = editor.size_of(SAMPLE.source, "")
    arguments = editor.family.call(
        SAMPLE, editor.sources_of(SAMPLE), 2, size=size, guidance=editor.guidance, text_tokens=editor.text_tokens
    )
    with torch.no_grad(), editor.scoped("euler", size):
        stock = editor.pipe(**arguments, num_inference_steps=3, generator=[noise_generator(1, i) for i in range(2)])[0]
    for ours, theirs in zip(rollout.images, stock, strict=True):
        assert np.array_equal(np.array(ours), np.array(theirs.convert("RGB")))
    assert rollout.images[0].size == (96, 64)
    assert rollout.levels[0] == pytest.approx(1.0)
    assert (rollout.levels.diff() < 0).all()


@every_family
def test_the_clean_latents_continue_the_last_call_by_its_velocity(pipeline_path: Paths, name: str) -> None:
    """Euler from the last visited level t: x0 = x_t - t v, whatever layout, sign and scale of time."""
    editor = load(pipeline_path, name)
    rollout = roll(editor, every_call=True)
    family, shape = editor.family, rollout.conditioning.shape
    recorded = rollout.calls[-1].arguments[family.latents]
    latents = target_of(recorded, family, extent(family, shape))[conditional_rows(recorded, family, 2)]
    x_t = latents.reshape(rollout.latents.shape).float()
    t = rollout.levels[-1].expand(2)
    with torch.no_grad():
        v = editor.velocity(rollout.conditioning, x_t, t)
    torch.testing.assert_close(x_t - t[:, None, None] * v, rollout.latents, rtol=1e-4, atol=1e-4)


@every_family
def test_the_dpm_sampler_works_in_every_pipeline(pipeline_path: Paths, name: str) -> None:
    rollout = load(pipeline_path, name).rollout(SAMPLE, 2, steps=3, seed=1, scheduler="dpm2")
    assert rollout.latents.isfinite().all()
    assert not torch.equal(rollout.latents[0], rollout.latents[1])


@every_family
def test_a_lora_step_changes_the_policy_alone_and_is_loaded_by_the_stock_loader(
    pipeline_path: Paths, name: str, tmp_path: Path
) -> None:
    editor = load(pipeline_path, name)
    editor.add_policies(AdapterConfig(rank=2, alpha=4))
    nft_step(editor, 1.0)  # the first step moves B alone, from zero
    rollout, before, after = nft_step(editor, 1.0)
    _, x_t, t = noised(rollout)
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    with torch.no_grad(), editor.policies.using("old"):
        old = editor.velocity(rollout.conditioning, x_t, t)
    editor.policies.save(tmp_path, "default")
    fresh = open_editor(pipeline_path(name), pixels=PIXELS)
    if hasattr(fresh.pipe, "load_lora_weights"):
        fresh.pipe.load_lora_weights(tmp_path)
    else:
        load_lora_into(fresh.pipe, tmp_path)
    with torch.no_grad():
        loaded = fresh.velocity(rollout.conditioning, x_t, t)
        with editor.policies.using("default"):
            assert torch.equal(loaded, editor.velocity(rollout.conditioning, x_t, t))
        with editor.policies.using("reference"):
            assert torch.equal(old, editor.velocity(rollout.conditioning, x_t, t))


@every_family
def test_a_full_step_changes_the_policy_and_is_loaded_by_the_denoisers_class(
    pipeline_path: Paths, name: str, tmp_path: Path
) -> None:
    editor = load(pipeline_path, name)
    editor.add_policies(AdapterConfig(mode="full"))
    rollout, before, after = nft_step(editor, 1e-3)
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    editor.policies.save(tmp_path, "default")
    _, x_t, t = noised(rollout)
    fresh = open_editor(pipeline_path(name), pixels=PIXELS)
    denoiser_class: Any = type(fresh.denoiser)
    fresh.denoiser.load_state_dict(denoiser_class.from_pretrained(tmp_path).state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fresh.velocity(rollout.conditioning, x_t, t), after, rtol=1e-5, atol=1e-6)


TWO_SOURCES = replace(SAMPLE, references=(tiny_sample(size=(64, 96), seed=7).source,))


@pytest.mark.parametrize("name", sorted(name for name, family in FAMILIES.items() if family.sources in (0, 1)))
def test_more_sources_than_the_editor_takes_are_refused(pipeline_path: Paths, name: str) -> None:
    editor = load(pipeline_path, name)
    with pytest.raises(UserError, match=f"has 2 source images, .* takes {editor.family.sources}"):
        editor.rollout(TWO_SOURCES, 2, steps=2, seed=0)


@pytest.mark.parametrize("name", sorted(name for name, family in FAMILIES.items() if family.sources not in (0, 1)))
def test_several_sources_are_seen(pipeline_path: Paths, name: str) -> None:
    editor = load(pipeline_path, name)
    one, two = (editor.rollout(sample, 2, steps=2, seed=0, every_call=True) for sample in (SAMPLE, TWO_SOURCES))
    assert not torch.equal(one.latents, two.latents)
    assert editor.self_check(two) == [0.0, 0.0]


@every_family
def test_nothing_of_the_pipeline_stays_changed(pipeline_path: Paths, name: str) -> None:
    editor = load(pipeline_path, name)
    module = sys.modules[type(editor.pipe).__module__]
    before = dict(vars(module)), {k: v for k, v in vars(editor.pipe).items() if not k.startswith("_")}
    with pytest.raises(RuntimeError, match="stop"), editor.scoped("dpm2", (96, 64)):
        raise RuntimeError("stop")
    assert dict(vars(module)) == before[0]
    assert {k: v for k, v in vars(editor.pipe).items() if not k.startswith("_")} == before[1]
    if hasattr(editor.pipe, "vae"):
        assert inspect.ismethod(editor.pipe.vae.encode)


def record_lines() -> dict[str, int]:
    """Lines of code of each record by its pipeline, the functions that it alone uses included."""
    tree = ast.parse(inspect.getsource(families))
    functions = {node.name: _length(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    lines = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.value.keywords}
            if "pipeline" not in keywords:  # the tuple of all records
                continue
            used = [value.id for value in keywords.values() if isinstance(value, ast.Name) and value.id in functions]
            lines[ast.literal_eval(keywords["pipeline"])] = _length(node) + sum(functions[name] for name in used)
    return lines


def _length(node: ast.stmt) -> int:
    assert node.end_lineno is not None, "parsed from text"
    return node.end_lineno - node.lineno + 1


def test_a_record_has_at_most_30_lines() -> None:
    lines = record_lines()
    assert lines.keys() == FAMILIES.keys() and max(lines.values()) <= 30


def test_the_catalogue_names_every_family_and_gives_a_reason_for_what_is_not_supported() -> None:
    rows = {row["pipeline"]: row for row in catalogue()}
    assert rows.keys() == FAMILIES.keys() | UNSUPPORTED.keys()
    for row in rows.values():
        assert set(row) == {"family", "pipeline", "supported", "reason", "source_images"}
        assert row["supported"] == (row["reason"] is None)
        assert hasattr(__import__("diffusers"), row["pipeline"])
        assert issubclass(getattr(__import__("diffusers"), row["pipeline"]), DiffusionPipeline)


@pytest.mark.parametrize("name", ["Flux2KleinPipeline", "LongCatImageEditPipeline", "StableDiffusion3Pipeline"])
def test_a_pipeline_without_a_record_is_probed_when_it_is_loaded(
    pipeline_path: Paths, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FAMILIES, name)
    editor = load(pipeline_path, name)
    editor.add_policies(AdapterConfig(rank=2, alpha=4))
    _, before, after = nft_step(editor, 1.0)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("name", ["DreamLitePipeline", "DreamLiteMobilePipeline"])
def test_a_pipeline_that_fails_for_a_group_is_refused_with_its_own_error(pipeline_path: Paths, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} cannot be called as its signature suggests: RuntimeError"):
        load(pipeline_path, name)


def test_outside_of_training_the_image_guidance_of_omnigen_is_the_pipelines_own(pipeline_path: Paths) -> None:
    """The stock call leaves `img_guidance_scale` at 1.6; training sets it to 1, which switches it off."""
    path = pipeline_path("OmniGenPipeline")
    editor = open_named_editor(str(path), pixels=PIXELS, device=torch.device("cpu"))
    rollout = roll(editor, 1)
    size = editor.size_of(SAMPLE.source, "")
    assert size is not None
    prompt, (source,) = f"<img><|image_1|></img> {SAMPLE.instruction}", editor.sources_of(SAMPLE)

    def stock(**scales: float) -> np.ndarray:
        noise = [noise_generator(1, 0)]
        sizes = {"width": size[0], "height": size[1]}
        with torch.no_grad(), editor.scoped("euler", size):  # for the mean of the source's latents alone
            call = {"prompt": prompt, "input_images": [source], "num_inference_steps": 3, "generator": noise}
            return np.array(editor.pipe(**call, **sizes, **scales)[0][0].convert("RGB"))

    assert np.array_equal(np.array(rollout.images[0]), stock())
    assert not np.array_equal(stock(), stock(img_guidance_scale=1.0))
    training = open_editor(path, pixels=PIXELS)
    assert training.family.call(SAMPLE, [source], 1)["img_guidance_scale"] == 1.0
    assert np.array_equal(np.array(roll(training, 1).images[0]), stock(guidance_scale=1.0, img_guidance_scale=1.0))
