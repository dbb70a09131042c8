"""Checkpointing, tiles, attention and compilation: they change what an edit costs, not what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FluxTransformer2DModel
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch import Tensor, nn
from torch._dynamo.utils import counters

from editr1.config.settings import EditorConfig, MemoryConfig
from editr1.editors import memory as memory_module
from editr1.editors.editor import Editor
from editr1.editors.memory import (
    checkpoint_blocks,
    compile_blocks,
    multiply_in_tf32,
    set_attention,
    tile_vae,
    usable_attention,
)
from editr1.editors.open import apply_memory, check_loading
from editr1.errors import UserError
from tests.editors.fitted import POLICIES, count_calls, gradients, inputs_of, make, relative, with_lora
from tests.editors.tiny_denoisers import build_flux_1, build_flux_2, output
from tests.tiny import build_vae, tiny_sample

# Checkpointing


def test_checkpointing_changes_no_gradient(tiny_editor: Editor) -> None:
    inputs = inputs_of(with_lora(tiny_editor))
    right, calls = (
        gradients(tiny_editor, inputs),
        count_calls(tiny_editor.denoiser.get_submodule("transformer_blocks.0")),
    )
    checkpoint_blocks(tiny_editor.denoiser, lambda: tiny_editor.policies)
    found = gradients(tiny_editor, inputs)
    assert len(calls) == 2  # once forward, once again
    assert len(found) == len(right) and all(map(torch.equal, found, right))


def test_a_block_is_computed_again_by_the_policy_of_its_forward_pass(tiny_editor: Editor) -> None:
    inputs = inputs_of(with_lora(tiny_editor))
    right = gradients(tiny_editor, inputs)
    checkpoint_blocks(tiny_editor.denoiser, lambda: tiny_editor.policies)
    for policy in ("old", "reference"):
        found = gradients(tiny_editor, inputs, during=tiny_editor.policies.using(policy))
        assert all(map(torch.equal, found, right))


@pytest.mark.parametrize("build", [build_flux_1, build_flux_2])
def test_checkpointing_changes_no_gradient_of_flux(build: Any) -> None:
    answers = []
    for on in (False, True):
        editor = Editor(build(), _flux_family(build))
        if on:
            checkpoint_blocks(editor.denoiser, partial(getattr, editor, "policies"))
        with_lora(editor)
        calls = count_calls(editor.denoiser.get_submodule("single_transformer_blocks.1"))
        with torch.enable_grad():
            loss = output.__wrapped__(editor.denoiser).square().sum()  # type: ignore[attr-defined]
        weights = [weight for _, weight in editor.policies.parameters()]
        answers.append([g for g in torch.autograd.grad(loss, weights, allow_unused=True) if g is not None])
        assert len(calls) == 1 + on
    assert len(answers[0]) > 10 and all(map(torch.equal, *answers))


def test_a_denoiser_that_cannot_is_refused(tiny_editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tiny_editor.denoiser), "_supports_gradient_checkpointing", False)
    monkeypatch.setattr(type(tiny_editor.denoiser), "_repeated_blocks", [])
    with pytest.raises(UserError, match="QwenImageTransformer2DModel does not support it"):
        apply_memory(tiny_editor, MemoryConfig(gradient_checkpointing=True))
    with pytest.raises(UserError, match="no repeated blocks of QwenImageTransformer2DModel"):
        apply_memory(tiny_editor, MemoryConfig(compile=True))


def _flux_family(build: Any) -> Any:
    from editr1.editors.families import FLUX2_KLEIN, FLUX_KONTEXT

    return FLUX_KONTEXT if build is build_flux_1 else FLUX2_KLEIN


# Tiles


def _kl() -> AutoencoderKL:
    torch.manual_seed(0)
    channels, blocks = (8, 8, 8, 8), 4
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=2,
        sample_size=256,
    ).eval()


class _Holder:
    def __init__(self, vae: Any) -> None:
        self.vae = vae


@torch.no_grad()
@pytest.mark.parametrize(("build", "time"), [(_kl, ()), (build_vae, (1,))], ids=["kl", "qwen"])
def test_tiles_agree_with_the_whole_and_small_pictures_are_not_cut(build: Any, time: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    whole = build()
    tiled = build()
    tiled.load_state_dict(whole.state_dict())
    tile_vae(_Holder(tiled))
    small = torch.rand(1, 4, *time, 16, 32)
    assert torch.equal(tiled.decode(small).sample, whole.decode(small).sample)
    large = torch.randn(1, 4, *time, 48, 48)  # alike everywhere, as norms are taken tile by tile
    right, found = whole.decode(large).sample, tiled.decode(large).sample
    assert found.shape == right.shape
    assert 0 < relative(found, right) < 0.15


def test_a_pipeline_without_tiles_is_refused() -> None:
    with pytest.raises(UserError, match="no VAE that tiles"):
        tile_vae(build_flux_1())


# Attention


def test_math_attention_is_near_the_default_and_stays_the_denoisers_own(tiny_editor: Editor) -> None:
    inputs, before = inputs_of(tiny_editor), _AttentionBackendRegistry._active_backend
    with torch.no_grad():
        right, state = tiny_editor.velocity(*inputs), torch.get_rng_state()
        set_attention(tiny_editor.denoiser, "_native_math")
        assert torch.allclose(tiny_editor.velocity(*inputs), right, rtol=0, atol=1e-5)
    assert {b.attn.processor._attention_backend for b in tiny_editor.pipe.transformer.transformer_blocks} == {
        "_native_math"
    }
    assert _AttentionBackendRegistry._active_backend == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["nonsense", "_flash_3", "sage", "sage_hub"])
def test_attention_that_is_not_there_is_refused_with_what_is(tiny_editor: Editor, name: str) -> None:
    with pytest.raises(UserError, match=r"available: .*native.*_native_math") as caught:
        apply_memory(tiny_editor, MemoryConfig(attention=name))
    assert "\n" not in str(caught.value)
    assert name not in usable_attention(torch.device("cpu"), torch.float32)
    assert tiny_editor.pipe.transformer.transformer_blocks[0].attn.processor._attention_backend is None


def test_attention_without_gradients_is_refused(tiny_editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "dispatch_attention_fn", lambda q, k, v: torch.zeros_like(q))
    with pytest.raises(UserError, match="it computes no gradients"):
        set_attention(tiny_editor.denoiser, "native")


def test_attention_that_the_denoiser_does_not_choose_is_refused(pipeline_path: Any) -> None:
    denoiser = DiffusionPipeline.from_pretrained(pipeline_path("StableDiffusion3Pipeline")).transformer
    with pytest.raises(UserError, match="SD3Transformer2DModel computes attention in its own way"):
        set_attention(denoiser, "_native_math")


# TF32


@pytest.fixture
def precision() -> Iterator[Callable[[], str]]:
    """Reads the precision of the process's float32 products, which is as before after the test."""
    before = torch.get_float32_matmul_precision()
    yield torch.get_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def test_tf32_is_on_where_a_run_says_so_and_off_in_the_next_run_of_the_process(
    tiny_editor: Editor, precision: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    multiply_in_tf32(True, torch.device("cuda:1"))
    assert precision() == "high" and torch.backends.cuda.matmul.allow_tf32
    apply_memory(tiny_editor, MemoryConfig())
    assert precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32


def test_a_device_without_tf32_is_refused_before_an_editor_is_loaded(
    tiny_editor: Editor, tiny_editor_path: Path, precision: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EditorConfig(path=str(tiny_editor_path), device="cpu")
    for refuse in (check_loading, lambda _, memory: apply_memory(tiny_editor, memory)):
        with pytest.raises(UserError, match=r"memory\.tf32: cpu here has no TF32, .*; set it to false"):
            refuse(settings, MemoryConfig(tf32=True))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(UserError, match=r"memory\.tf32: cuda here has no TF32"):
        multiply_in_tf32(True, torch.device("cuda"))
    assert precision() == "highest"


# Compilation


@pytest.mark.long
def test_policies_switch_in_compiled_blocks_which_are_not_compiled_again(tiny_editor: Editor) -> None:
    """Compiled before the LoRA is put in, called before and after, with every policy, with and without gradient; then
    with other numbers of rows, of tokens and of words."""
    torch.compiler.reset()
    inputs = inputs_of(tiny_editor)
    compile_blocks(tiny_editor.denoiser, backend="eager")
    before = _velocities(tiny_editor, inputs, ("reference",))
    with_lora(tiny_editor)
    found = [_velocities(tiny_editor, inputs)]
    trained = gradients(tiny_editor, inputs)
    tiny_editor.self_check(make(tiny_editor))
    graphs = counters["stats"]["unique_graphs"]
    found.append(_velocities(tiny_editor, inputs))
    sample = tiny_sample("replace the red ball the green cat", size=(192, 64))
    rollout = tiny_editor.rollout(sample, 3, steps=2, seed=0)
    others = rollout.conditioning, rollout.latents, torch.tensor([0.3, 0.5, 0.8])
    assert rollout.latents.shape[1] != inputs[1].shape[1]
    _velocities(tiny_editor, others)
    gradients(tiny_editor, others)
    assert counters["stats"]["unique_graphs"] == graphs
    _call_as_they_are(tiny_editor.denoiser)
    right = _velocities(tiny_editor, inputs)
    assert (right["default"] - right["old"]).abs().max() > 1e-3
    for policy in POLICIES:
        assert all(torch.allclose(answer[policy], right[policy], rtol=0, atol=1e-4) for answer in found)
    assert torch.allclose(before["reference"], right["reference"], rtol=0, atol=1e-4)
    expected = gradients(tiny_editor, inputs)
    assert relative(torch.cat([g.flatten() for g in trained]), torch.cat([g.flatten() for g in expected])) < 1e-4


def test_a_run_that_compiles_more_often_than_it_needs_is_told_so_once(
    tiny_editor: Editor, capsys: pytest.CaptureFixture[str]
) -> None:
    compile_blocks(tiny_editor.denoiser)
    _call_as_they_are(tiny_editor.denoiser)
    told = []
    for more in (12, 1, 1):
        counters["stats"]["unique_graphs"] += more
        make(tiny_editor)
        told.append(capsys.readouterr().err)
    assert told[0] == told[2] == ""
    assert told[1].startswith("editr1: warning: the denoiser's blocks were compiled 13 times, and 12 are what")
    assert told[1].count("\n") == 1 and "memory.compile=false" in told[1]


def _call_as_they_are(denoiser: nn.Module) -> None:
    """Undo the compilation."""
    for module in denoiser.modules():
        module._compiled_call_impl = None


def test_blocks_of_one_class_share_what_was_compiled() -> None:
    """Else 60 blocks would meet torch's limit of recompilations."""
    graphs = []
    for layers in (2, 4):
        torch.compiler.reset()
        counters.clear()
        denoiser = FluxTransformer2DModel(
            num_layers=layers,
            num_single_layers=layers,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            in_channels=16,
            pooled_projection_dim=8,
            axes_dims_rope=(4, 6, 6),
        )
        editor = Editor(build_flux_1(), _flux_family(build_flux_1))
        editor.denoiser = denoiser.requires_grad_(False)
        compile_blocks(denoiser, backend="eager")
        with_lora(editor)
        for policy in POLICIES:
            with editor.policies.using(policy):
                output(denoiser)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1]


@torch.no_grad()
def _velocities(editor: Editor, inputs: Any, policies: tuple[Any, ...] = POLICIES) -> dict[str, Tensor]:
    answers = {}
    for policy in policies:
        with editor.policies.using(policy):
            answers[policy] = editor.velocity(*inputs)
    return answers
