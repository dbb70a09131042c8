"""Rollouts are the stock pipeline's, and replaying its denoiser call gives what it gave."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as stock
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from editr1.editors.editor import Editor, EditorMismatch, fit, temporarily
from editr1.editors.families import FAMILIES
from editr1.editors.open import open_editor
from editr1.editors.recorder import largest_difference
from editr1.errors import UserError
from tests.tiny import LATENT_CHANNELS, PIXELS, TEMPLATE_PREFIX, build_tokenizer, tiny_sample


def as_arrays(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def decoded(editor: Editor, latents: Tensor) -> np.ndarray:
    """Packed latents [G, 16, 16] of a 64x64 edit through the VAE, by hand."""
    vae, g = editor.pipe.vae, len(latents)
    grid = latents.reshape(g, 4, 4, LATENT_CHANNELS, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(g, -1, 1, 8, 8)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    with torch.no_grad():
        pixels = vae.decode(grid * std + mean).sample[:, :, 0]
    return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)


def test_template_prefix_is_what_the_pipeline_drops(tiny_editor: Editor) -> None:
    template = tiny_editor.pipe.prompt_template_encode
    assert template.startswith(TEMPLATE_PREFIX)
    assert len(build_tokenizer()(TEMPLATE_PREFIX).input_ids) == tiny_editor.pipe.prompt_template_encode_start_idx
    assert tiny_editor.pipe.tokenizer.decode(build_tokenizer()("zebra 7 é").input_ids) == "zebra 7 é"


def test_rollout_is_the_stock_pipelines_own_call(
    tiny_editor: Editor, tiny_editor_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = tiny_sample()
    got = tiny_editor.rollout(sample, 3, steps=3, seed=5, scheduler="euler")
    pipe = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
    monkeypatch.setattr(stock, "VAE_IMAGE_SIZE", PIXELS)
    monkeypatch.setattr(stock, "CONDITION_IMAGE_SIZE", PIXELS)
    states = [np.random.SeedSequence([5, i]).generate_state(1, np.uint64)[0] for i in range(3)]
    want = pipe(
        image=sample.source,
        prompt=sample.instruction,
        height=64,
        width=64,
        num_inference_steps=3,
        true_cfg_scale=1.0,
        num_images_per_prompt=3,
        generator=[torch.Generator().manual_seed(int(state)) for state in states],
    ).images
    np.testing.assert_array_equal(as_arrays(got.images), as_arrays(want))


def test_latents_are_those_that_were_decoded(tiny_editor: Editor) -> None:
    rollout = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    assert rollout.latents.shape == (2, 16, 4 * LATENT_CHANNELS)
    assert rollout.latents.dtype == torch.float32
    np.testing.assert_array_equal(decoded(tiny_editor, rollout.latents), as_arrays(rollout.images))


def test_an_edit_depends_on_its_seed_and_index_alone(tiny_editor: Editor) -> None:
    sample = tiny_sample()
    four = tiny_editor.rollout(sample, 4, steps=2, seed=1).latents
    two = tiny_editor.rollout(sample, 2, steps=2, seed=1).latents
    other = tiny_editor.rollout(sample, 2, steps=2, seed=2).latents
    torch.testing.assert_close(two, four[:2], rtol=0, atol=1e-5)
    assert torch.pdist(torch.cat([four, other]).flatten(1)).min() > 1


def test_conditioning_holds_one_row_and_the_encoded_source(tiny_editor: Editor) -> None:
    sample = tiny_sample()
    conditioning = tiny_editor.rollout(sample, 3, steps=2, seed=0).conditioning
    vae = tiny_editor.pipe.vae
    pixels = torch.from_numpy(np.array(sample.source)).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    with torch.no_grad():
        grid = (vae.encode(pixels).latent_dist.mode() - mean) / std
    packed = grid.reshape(1, LATENT_CHANNELS, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 16, -1)
    torch.testing.assert_close(conditioning.source, packed, rtol=0, atol=1e-5)
    assert conditioning.rows["encoder_hidden_states"].shape[0] == 1
    assert conditioning.shared["img_shapes"] == [[(1, 4, 4), (1, 4, 4)]]


@pytest.mark.parametrize("scheduler", ["dpm2", "euler"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replay_equals_every_call_of_the_pipeline_bit_for_bit(
    tiny_editor_path: Path, scheduler: Any, dtype: torch.dtype
) -> None:
    editor = open_editor(tiny_editor_path, dtype=dtype, pixels=PIXELS)
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    handle = editor.denoiser.register_forward_hook(
        lambda m, a, k, out: calls.append((k["hidden_states"][:, :16], k["timestep"], out[0][:, :16])), with_kwargs=True
    )
    rollout = editor.rollout(tiny_sample(), 3, steps=4, seed=0, scheduler=scheduler)
    handle.remove()
    assert len(calls) == 4
    assert torch.equal(rollout.levels, torch.stack([t[0] for _, t, _ in calls]).float())
    assert rollout.levels[0] == 1 and (rollout.levels.diff() < 0).all()
    for x_t, t, output in calls:
        assert output.dtype == dtype
        replayed = editor.velocity(rollout.conditioning, x_t, t)  # as in training: gradients on
        assert torch.equal(replayed, output.float())
    editor.self_check(rollout)


@pytest.mark.parametrize("scheduler", ["dpm2", "euler"])
def test_velocity_leads_from_the_last_latents_to_x0(tiny_editor: Editor, scheduler: Any) -> None:
    rollout = tiny_editor.rollout(tiny_sample(), 2, steps=3, seed=3, scheduler=scheduler)
    x_t = rollout.calls[-1].arguments["hidden_states"][:, :16]
    assert rollout.calls[-1].arguments["timestep"].tolist() == pytest.approx([0.02, 0.02], abs=1e-6)  # shift_terminal
    velocity = tiny_editor.velocity(rollout.conditioning, x_t, torch.full((2,), 0.02))
    torch.testing.assert_close(rollout.latents, x_t - 0.02 * velocity, rtol=0, atol=1e-6)


def test_a_trajectory_is_the_path_from_noise_to_the_edit(tiny_editor: Editor) -> None:
    """Euler: x_{i+1} = x_i + (s_{i+1} - s_i) v(x_i, s_i), with s = 0 in the end."""
    rollout = tiny_editor.rollout(tiny_sample(), 3, steps=4, seed=0, scheduler="euler", keep_trajectory=True)
    trajectory = rollout.trajectory
    assert trajectory is not None and trajectory.dtype == torch.float32
    assert trajectory.shape == (5, 3, 16, 4 * LATENT_CHANNELS)  # S + 1, G, N, C
    assert torch.equal(trajectory[-1], rollout.latents)
    assert trajectory[0].mean().item() == pytest.approx(0, abs=0.1)
    assert trajectory[0].std().item() == pytest.approx(1, abs=0.1)
    levels = [*rollout.levels.tolist(), 0.0]
    for i in range(4):
        with torch.no_grad():
            v = tiny_editor.velocity(rollout.conditioning, trajectory[i], torch.full((3,), levels[i]))
        want = trajectory[i] + (levels[i + 1] - levels[i]) * v
        torch.testing.assert_close(trajectory[i + 1], want, rtol=0, atol=1e-6)


def test_a_trajectory_is_kept_only_when_asked_for(tiny_editor: Editor) -> None:
    free = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    assert free.trajectory is None
    dear = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0, keep_trajectory=True)
    assert torch.equal(free.latents, dear.latents)
    assert dear.trajectory is not None and torch.equal(dear.trajectory[-1], dear.latents)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_latents_that_are_not_numbers_are_refused(tiny_editor: Editor) -> None:
    with pytest.raises(UserError, match="'tiny-0': the sampler gave NaN"):
        tiny_editor.rollout(tiny_sample(), 2, steps=1, seed=0)  # diffusers divides by zero: shift_terminal, one step


def test_velocity_heeds_instruction_source_and_time(tiny_editor: Editor) -> None:
    base = tiny_editor.rollout(tiny_sample(), 1, steps=2, seed=0)
    x_t, t = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    want = tiny_editor.velocity(base.conditioning, x_t, t)
    other_text = tiny_editor.rollout(tiny_sample("add a blue cat"), 1, steps=2, seed=0)
    other_source = tiny_editor.rollout(tiny_sample(seed=1), 1, steps=2, seed=0)
    for changed in (
        tiny_editor.velocity(other_text.conditioning, x_t, t),
        tiny_editor.velocity(other_source.conditioning, x_t, t),
        tiny_editor.velocity(base.conditioning, x_t, t / 2),
    ):
        assert (changed - want).abs().max() > 1e-4


def test_rows_of_a_replay_do_not_mix(tiny_editor: Editor) -> None:
    conditioning = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0).conditioning
    x_t, t = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.5, 0.9])
    together = tiny_editor.velocity(conditioning, x_t, t)
    apart = torch.cat([tiny_editor.velocity(conditioning, x_t[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)


def test_gradients_flow_to_latents_as_finite_differences_say(tiny_editor: Editor) -> None:
    conditioning = tiny_editor.rollout(tiny_sample(), 1, steps=2, seed=0).conditioning
    generator = torch.Generator().manual_seed(0)
    x_t, d = (torch.randn(1, 16, 16, generator=generator) for _ in range(2))
    t = torch.tensor([0.4])
    x_t.requires_grad_(True)
    tiny_editor.velocity(conditioning, x_t, t).square().sum().backward()
    with torch.no_grad():
        up, down = (tiny_editor.velocity(conditioning, x_t + e * d, t).square().sum() for e in (1e-2, -1e-2))
    assert x_t.grad is not None
    assert (x_t.grad * d).sum().item() == pytest.approx((up - down).item() / 2e-2, rel=1e-2)


def test_self_check_names_the_argument_that_differs(tiny_editor: Editor) -> None:
    rollout = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    rows = {**rollout.conditioning.rows}
    rows["encoder_hidden_states"] = rows["encoder_hidden_states"] + 0.25
    wrong = dataclasses.replace(rollout, conditioning=dataclasses.replace(rollout.conditioning, rows=rows))
    with pytest.raises(EditorMismatch, match=r"differ: encoder_hidden_states by 0\.25; look at batch_args"):
        tiny_editor.self_check(wrong)


def test_self_check_tells_a_changed_denoiser_from_changed_arguments(tiny_editor: Editor) -> None:
    rollout = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    with torch.no_grad():
        tiny_editor.denoiser.get_parameter("proj_out.bias").add_(0.5)
    with pytest.raises(EditorMismatch, match=r"largest difference 0\.5\).*all arguments are equal.*another policy"):
        tiny_editor.self_check(rollout)


def globals_of(editor: Editor) -> tuple[Any, ...]:
    hooks = len(editor.denoiser._forward_hooks) + len(editor.denoiser._forward_pre_hooks)
    config = json.dumps({k: str(v) for k, v in editor.pipe.config.items()})
    return editor.pipe.scheduler, hooks, config, stock.VAE_IMAGE_SIZE, stock.CONDITION_IMAGE_SIZE


@pytest.mark.parametrize("broken", ["transformer", "vae", "text_encoder"])
def test_a_rollout_that_raises_leaves_nothing_behind(tiny_editor: Editor, broken: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken on purpose")

    before = globals_of(tiny_editor)
    component = getattr(tiny_editor.pipe, broken)
    inner = component.decoder if broken == "vae" else component
    handle = inner.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    handle.remove()
    assert globals_of(tiny_editor) == before
    tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    assert globals_of(tiny_editor) == before
    assert type(tiny_editor.pipe.scheduler) is FlowMatchEulerDiscreteScheduler


def test_temporarily_restores_what_it_set_when_a_later_one_cannot_be_set() -> None:
    class Stubborn:
        a = 1
        b = property(lambda self: 2)

    target = Stubborn()
    with pytest.raises(AttributeError), temporarily(target, a=5, b=6):
        pass
    assert target.a == 1


@pytest.mark.parametrize(
    ("source", "want"), [((64, 64), (64, 64)), ((128, 64), (96, 32)), ((40, 90), (32, 96)), ((300, 280), (64, 64))]
)
def test_edit_and_source_have_the_area_and_the_sources_shape(
    tiny_editor: Editor, source: tuple[int, int], want: tuple[int, int]
) -> None:
    rollout = tiny_editor.rollout(tiny_sample(size=source), 1, steps=2, seed=0)
    assert rollout.images[0].size == want
    shape = (1, want[1] // 16, want[0] // 16)
    assert rollout.conditioning.shared["img_shapes"] == [[shape, shape]]


def test_text_encoders_copy_is_made_smaller_but_never_larger(tiny_editor_path: Path) -> None:
    for pixels, preview in ((64 * 64, 64 * 64), (512 * 512, 384 * 384)):
        with open_editor(tiny_editor_path, pixels=pixels).scoped("euler"):
            assert (pixels, preview) == (stock.VAE_IMAGE_SIZE, stock.CONDITION_IMAGE_SIZE)
    with open_editor(tiny_editor_path).scoped("euler"):
        assert (stock.VAE_IMAGE_SIZE, stock.CONDITION_IMAGE_SIZE) == (1024 * 1024, 384 * 384)


def test_too_elongated_a_source_is_refused_with_the_remedy(tiny_editor: Editor) -> None:
    with pytest.raises(UserError, match=r"'tiny-0': a source of 640x10 is too elongated.*raise editor\.pixels"):
        tiny_editor.rollout(tiny_sample(size=(640, 10)), 1, steps=2, seed=0)


def test_loading_freezes_every_weight(tiny_editor: Editor) -> None:
    modules = [c for c in tiny_editor.pipe.components.values() if isinstance(c, torch.nn.Module)]
    assert len(modules) == 3
    assert not any(p.requires_grad for module in modules for p in module.parameters())


def test_wrong_paths_and_unknown_pipelines_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing.*no diffusers pipeline there"):
        open_editor(tmp_path / "missing")
    with pytest.raises(UserError, match="no diffusers pipeline there"):
        open_editor(tmp_path)
    (tmp_path / "model_index.json").write_text("{not json")
    with pytest.raises(UserError, match="no diffusers pipeline there"):
        open_editor(tmp_path)


def write_index(folder: Path, pipeline: str, **components: list[str]) -> Path:
    index = {"_class_name": pipeline, "_diffusers_version": "0.42.1", **components}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_denoiser_that_predicts_noise_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    write_index(tmp_path, "StableDiffusionInstructPix2PixPipeline", scheduler=["diffusers", "DDIMScheduler"])
    with pytest.raises(UserError, match="samples by DDIMScheduler, so its denoiser predicts no flow-matching velocity"):
        open_editor(tmp_path)


def test_a_pipeline_of_another_diffusers_and_one_without_scheduler_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"this diffusers \(.*\) has no FutureEditPipeline"):
        open_editor(write_index(tmp_path, "FutureEditPipeline"))
    with pytest.raises(UserError, match="has no scheduler"):
        open_editor(write_index(tmp_path, "FluxKontextPipeline"))


def test_a_broken_weights_file_is_one_line(tiny_editor_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_editor_path, broken)
    weights = next((broken / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"broken.*cannot load the pipeline: ") as caught:
        open_editor(broken)
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_a_denoiser_is_refused(tiny_editor: Editor) -> None:
    tiny_editor.pipe.transformer = None
    with pytest.raises(UserError, match="has no 'transformer', so there is nothing to train"):
        Editor(tiny_editor.pipe, tiny_editor.family)


def test_a_text_length_is_refused_where_there_is_none(tiny_editor: Editor) -> None:
    with pytest.raises(UserError, match=r"editor\.text_tokens=9: longcat-image-edit has no such setting"):
        Editor(tiny_editor.pipe, FAMILIES["LongCatImageEditPipeline"], text_tokens=9)


def test_guidance_is_refused_where_there_is_none(tiny_editor: Editor) -> None:
    with pytest.raises(UserError, match=r"editor\.guidance=3\.5: flux2-klein-kv takes no guidance"):
        Editor(tiny_editor.pipe, FAMILIES["Flux2KleinKVPipeline"], guidance=3.5)


@given(
    width=st.integers(16, 8000),
    height=st.integers(16, 8000),
    pixels=st.integers(64 * 64, 2048 * 2048),
    multiple=st.sampled_from([16, 32]),
)
def test_a_bucket_keeps_shape_and_area_to_half_a_multiple(width: int, height: int, pixels: int, multiple: int) -> None:
    exact = (pixels * width / height) ** 0.5, (pixels * height / width) ** 0.5
    size = fit((width, height), pixels, multiple)
    for side, wanted in zip(size, exact, strict=True):
        assert side % multiple == 0
        assert abs(side - wanted) <= multiple / 2 + 1e-6


def test_guided_rollouts_call_twice_and_keep_the_conditional_call(tiny_editor_path: Path) -> None:
    editor = open_editor(tiny_editor_path, pixels=PIXELS, guidance=4.0)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    editor.denoiser.register_forward_hook(count)
    rollout = editor.rollout(tiny_sample(), 2, steps=3, seed=0, every_call=True)
    assert calls == 6
    assert editor.self_check(rollout) == [0.0, 0.0, 0.0]
    free = open_editor(tiny_editor_path, pixels=PIXELS).rollout(tiny_sample(), 2, steps=3, seed=0)
    for name, row in rollout.conditioning.rows.items():
        assert largest_difference(row, free.conditioning.rows[name]) == 0
