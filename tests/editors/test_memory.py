"""Settings that save memory: what they give is what the editor gives without them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.hooks.group_offloading import _GROUP_OFFLOADING, GroupOffloadingHook
from torch import Tensor, nn

from editr1.config.settings import Config, MemoryConfig
from editr1.editors import memory as memory_module
from editr1.editors.editor import Editor, Rollout
from editr1.editors.families import FAMILIES
from editr1.editors.memory import (
    place,
    quantization,
)
from editr1.editors.open import apply_memory, find_family, load_pipeline, open_config_editor, open_editor
from editr1.errors import UserError
from editr1.training.checkpoint import changed_settings
from tests.editors.fitted import count_calls, gradients, inputs_of, make, relative, same, with_lora
from tests.tiny import PIXELS, tiny_sample


def config(path: Path, **memory: Any) -> Config:
    tree = {"editor": {"path": str(path), "dtype": "float32", "device": "cpu", "pixels": PIXELS}, "memory": memory}
    return Config.model_validate({**tree, "judge": {"path": "j"}, "data": {"path": "d"}})


# Loading, settings


def test_all_is_off_by_default_and_a_config_reaches_the_editor(tiny_editor_path: Path, tmp_path: Path) -> None:
    plain = open_config_editor(config(tiny_editor_path))
    assert not plain.denoiser.is_gradient_checkpointing and not plain.pipe.vae.use_tiling
    assert set(MemoryConfig().model_dump().values()) == {None, False}
    on = {"gradient_checkpointing": True, "vae_tiling": True, "attention": "_native_math", "cache": tmp_path}
    fitted = open_config_editor(config(tiny_editor_path, offload=True, **on))
    assert fitted.denoiser.is_gradient_checkpointing and fitted.pipe.vae.use_tiling
    assert relative(make(fitted).latents, make(plain).latents) < 1e-5
    assert list(tmp_path.rglob("*.safetensors"))


def test_a_run_may_go_on_with_other_settings_but_not_with_other_weights(tmp_path: Path) -> None:
    before = config(tmp_path).model_dump(mode="json")
    changed = config(tmp_path, offload=True, cache="c", vae_tiling=True, attention="flex", compile=True)
    assert changed_settings(before, changed) == ""
    assert "memory.quantize: None there, int8 here" in changed_settings(before, config(tmp_path, quantize="int8"))
    del before["memory"]  # of a run by an older version
    assert changed_settings(before, config(tmp_path)) == ""


def test_quantised_weights_are_not_trained_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'adapter\.mode to "lora"'):
        Config.model_validate({**config(tmp_path, quantize="nf4").model_dump(), "adapter": {"mode": "full"}})


# Number formats


def test_lora_is_float32_on_a_bfloat16_base_and_keeps_what_bfloat16_would_lose(tiny_editor_path: Path) -> None:
    editor = with_lora(open_editor(tiny_editor_path, dtype=torch.bfloat16, pixels=PIXELS))
    trained = {id(weight) for policy in ("default", "old") for weight in editor.policies.weights[policy].values()}
    assert {p.dtype for p in editor.denoiser.parameters() if id(p) in trained} == {torch.float32}
    assert {p.dtype for p in editor.denoiser.parameters() if id(p) not in trained} == {torch.bfloat16}
    editor.velocity(*inputs_of(editor)).square().mean().backward()
    moved = [weight for _, weight in editor.policies.parameters() if weight.grad is not None and weight.grad.any()]
    assert moved and all(weight.grad.isfinite().all() for weight in moved)  # type: ignore[union-attr]
    before = [weight.detach().clone() for weight in moved]
    torch.optim.AdamW(moved, lr=1e-6, weight_decay=0).step()
    for weight, was in zip(moved, before, strict=True):
        assert torch.allclose(weight - was, -1e-6 * weight.grad.sign(), rtol=0, atol=1e-6)  # type: ignore[union-attr]
        assert not torch.equal(weight, was)
    lost = [
        torch.equal(w.bfloat16()[big], b.bfloat16()[big])
        for w, b in zip(moved, before, strict=True)
        if (big := b.abs() > 0.01).any()
    ]
    assert sum(lost) > len(lost) / 2  # the same step is nothing in bfloat16


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_int8_denoiser_is_near_the_float_one_and_its_lora_is_trained(tiny_editor_path: Path) -> None:
    right = with_lora(open_editor(tiny_editor_path, pixels=PIXELS))
    editor = open_config_editor(config(tiny_editor_path, quantize="int8"))
    kept = {n for n, p in editor.denoiser.named_parameters() if type(p) in (Tensor, nn.Parameter)}
    linear = {f"{n}.weight" for n, m in editor.denoiser.named_modules() if isinstance(m, nn.Linear)}
    assert linear and not linear & kept
    assert all(type(p) is nn.Parameter for p in editor.pipe.text_encoder.parameters())
    inputs = inputs_of(right)
    with torch.no_grad(), right.policies.using("reference"):
        assert 1e-6 < relative(editor.velocity(*inputs), right.velocity(*inputs)) < 0.02
    with_lora(editor)
    found, expected = gradients(editor, inputs), gradients(right, inputs)
    assert relative(torch.cat([g.flatten() for g in found]), torch.cat([g.flatten() for g in expected])) < 0.05
    with editor.policies.using("old"):
        editor.self_check(make(editor))


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("bitsandbytes") is None, reason="takes a GPU and bitsandbytes"
)
def test_nf4_denoiser_is_near_the_float_one(tiny_editor_path: Path) -> None:
    right = open_editor(tiny_editor_path, device="cuda", pixels=PIXELS)
    editor = open_editor(tiny_editor_path, device="cuda", pixels=PIXELS, quantize="nf4")
    conditioning, x_t, t = inputs_of(right)
    with torch.no_grad():
        found, expected = (one.velocity(conditioning, x_t, t.to(x_t.device)) for one in (editor, right))
    assert 1e-6 < relative(found, expected) < 0.3


def test_nf4_is_asked_for_as_qlora_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers refuses to quantise by bitsandbytes without a GPU: only what is asked is tested."""
    monkeypatch.setattr(memory_module, "find_spec", lambda name: name == "bitsandbytes")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no GPU here; use int8"):
            quantization("nf4", "transformer", torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        "editr1.editors.memory.BitsAndBytesConfig.post_init", lambda self: None
    )  # it asks for the package
    mapping = quantization("nf4", "transformer", torch.bfloat16).quant_mapping
    assert [*mapping] == ["transformer"]
    asked = mapping["transformer"]
    assert asked.load_in_4bit and asked.bnb_4bit_quant_type == "nf4"
    assert asked.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.mark.parametrize(("kind", "package"), [("nf4", "bitsandbytes"), ("int8", "torchao")])
def test_a_missing_package_is_named_with_its_command(
    monkeypatch: Any, tiny_editor_path: Path, kind: Any, package: str
) -> None:
    monkeypatch.setattr(memory_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"pip install {package}"):
        load_pipeline(tiny_editor_path, torch.float32, "cpu", quantize=kind)


def test_quantisation_reaches_from_pretrained_with_the_denoisers_name(monkeypatch: Any, tiny_editor_path: Path) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("editr1.editors.open.quantization", lambda *asked: asked)
    load = DiffusionPipeline.from_pretrained

    def watched(path: Any, **settings: Any) -> Any:
        given.update(settings)
        return load(path, dtype=settings["dtype"])

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", watched)
    load_pipeline(tiny_editor_path, torch.float32, "cpu", quantize="nf4")
    assert given["quantization_config"] == ("nf4", "transformer", torch.float32)


# Where things live


def test_offloading_changes_no_bit_and_hooks_all_but_the_denoiser(tiny_editor: Editor, tiny_editor_path: Path) -> None:
    pipe = load_pipeline(tiny_editor_path, torch.float32, "cpu", offload=True)
    family = find_family(tiny_editor_path)
    assert family is not None
    editor = Editor(pipe, family, pixels=PIXELS)
    assert _hooked(pipe.text_encoder) and _hooked(pipe.vae)
    assert not any(_hooked(module) for module in editor.denoiser.modules())
    assert same(make(editor), make(tiny_editor))
    assert pipe._execution_device == torch.device("cpu")


def test_only_the_denoiser_goes_to_the_device(tiny_editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, moved = tiny_editor.pipe, list[tuple[nn.Module, Any]]()
    for module in (pipe.transformer, pipe.text_encoder, pipe.vae):
        monkeypatch.setattr(module, "to", lambda device, module=module: moved.append((module, device)))
    place(pipe, "cuda:1", "transformer")
    assert moved == [(pipe.transformer, "cuda:1")]
    assert pipe._execution_device == torch.device("cuda:1")
    assert {p.device.type for p in [*pipe.text_encoder.parameters(), *pipe.vae.parameters()]} == {"cpu"}


def _hooked(model: nn.Module) -> bool:
    """Whether a layer with weights in it is brought to the device when it is called."""
    registries: list[Any] = [module._diffusers_hook for module in model.modules() if hasattr(module, "_diffusers_hook")]
    return any(isinstance(registry.get_hook(_GROUP_OFFLOADING), GroupOffloadingHook) for registry in registries)


def test_the_pipeline_that_asks_for_its_own_device_gets_the_gpu(pipeline_path: Any, monkeypatch: Any) -> None:
    pipe = DiffusionPipeline.from_pretrained(pipeline_path("LongCatImageEditPipeline"))
    monkeypatch.setattr(pipe.transformer, "to", lambda device: None)
    assert place(pipe, "cuda:1", "transformer").device == torch.device("cuda:1")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_offloads_remembers_and_checkpoints_with_no_bit_changed(
    pipeline_path: Any, tmp_path: Path, name: str
) -> None:
    path, area, sample = pipeline_path(name), 64 * 96, tiny_sample(size=(96, 64))

    def roll(editor: Editor) -> Rollout:
        return editor.rollout(sample, 2, steps=2, seed=1, scheduler="euler")

    plain = open_editor(path, pixels=area)
    right = roll(plain)
    inputs = (right.conditioning, right.latents, torch.tensor([0.3, 0.8]))
    expected = gradients(with_lora(plain), inputs)
    fitted = Editor(load_pipeline(path, torch.float32, "cpu", offload=True), FAMILIES[name], pixels=area)
    apply_memory(fitted, MemoryConfig(cache=tmp_path, gradient_checkpointing=True))
    assert same(roll(fitted), right)
    encoders = [part for key, part in fitted.pipe.components.items() if key.startswith("text_encoder")]
    calls = [count_calls(module) for encoder in encoders if encoder is not None for module in encoder.modules()]
    assert same(roll(fitted), right)
    assert not any(calls) and list(tmp_path.rglob("*.safetensors"))
    assert all(map(torch.equal, gradients(with_lora(fitted), inputs), expected))
