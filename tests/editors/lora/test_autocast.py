"""LoRA products in bfloat16 on float32 weights: how far they are from float64, and that all else stays as it is.

Letters: M rows of a layer's input, K its width, R the rank, O the width of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from editr1.config.settings import AdapterConfig, Config
from editr1.editors.editor import Editor
from editr1.editors.memory import checkpoint_blocks
from editr1.editors.open import open_editor
from editr1.editors.policies import LoraPolicies
from editr1.editors.recorder import Conditioning, map_tensors
from editr1.errors import UserError
from editr1.training.trainer import Trainer
from tests.editors import rank
from tests.editors.fitted import POLICIES, gradients, inputs_of, make, relative
from tests.editors.lora import autocast_rank
from tests.editors.test_sharding import run_ranks
from tests.tiny import PIXELS, shake
from tests.training.runs import Colours, RedJudge, assert_same_run, settings

U = 2.0**-8
"""Largest relative error of a number that is rounded to bfloat16, which has 8 bits of mantissa."""
HALF = torch.bfloat16


def opened(path: Path, *, autocast: bool, dtype: torch.dtype = HALF, quantize: Any = None) -> Editor:
    """A tiny editor with policies, "default" away from the others."""
    editor = open_editor(path, dtype=dtype, pixels=PIXELS, quantize=quantize)
    editor.add_policies(AdapterConfig(rank=3, alpha=12, autocast=autocast))
    shake(editor)
    return editor


# One layer


class One(nn.Module):
    """A denoiser of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(96, 80)


def one_layer(autocast: bool) -> tuple[LoraPolicies, Tensor, Tensor, Tensor, Tensor]:
    """Policies, input [M, K], gradient of the output [M, O], and the LoRA's A [R, K] and B [O, R], all random."""
    torch.manual_seed(0)
    denoiser = One().to(HALF).requires_grad_(False)
    policies = LoraPolicies(denoiser, "transformer", AdapterConfig(rank=8, alpha=24, autocast=autocast), ["proj"], 0)
    down, up = (weight for _, weight in policies.parameters())
    with torch.no_grad():
        up.normal_()
    return policies, torch.randn(64, 96).to(HALF), torch.randn(64, 80).to(HALF), down, up


@pytest.mark.parametrize("autocast", [False, True])
def test_a_layers_output_differs_from_float64_by_its_roundings_alone(autocast: bool) -> None:
    """Rounded are A, x A, B, (x A) B, and its scaled value; then the sum, as without autocast."""
    policies, x, _, down, up = one_layer(autocast)
    got = policies.denoiser.proj(x)
    assert got.dtype == HALF
    with torch.no_grad(), policies.using("reference"):
        base = policies.denoiser.proj(x).double()
    a, b, scale = down.double(), up.double(), 24 / 8
    want = base + scale * x.double() @ a.T @ b.T
    most = scale * x.double().abs() @ a.abs().T @ b.abs().T  # what the products would be if no terms cancelled
    limit = U * want.abs() + (1.1 * 5 * U * most if autocast else 1e-5 * most)
    assert ((got.double() - want).abs() <= limit).all()
    assert (got.double() - want).norm() <= (2.5 if autocast else 1) * U * want.norm()


def test_a_layers_gradient_reaches_float32_weights_and_differs_from_float64_by_its_roundings() -> None:
    """Of A and of B, four roundings each: scaled gradient, a weight, the product in between, the result."""
    policies, x, g, down, up = one_layer(autocast=True)
    policies.denoiser.proj(x).backward(g)
    assert down.grad is not None and up.grad is not None
    assert down.grad.dtype == up.grad.dtype == torch.float32
    a, b, x, g = (tensor.detach().double() for tensor in (down, up, x, 3 * g))
    for got, want, most in (
        (up.grad, g.T @ x @ a.T, g.abs().T @ x.abs() @ a.abs().T),
        (down.grad, b.T @ g.T @ x, b.abs().T @ g.abs().T @ x.abs()),
    ):
        assert ((got.double() - want).abs() <= 1.1 * 4 * U * most).all()
        assert (got.double() - want).norm() <= 2 * U * want.norm()
    assert torch.equal(up.grad.to(HALF).float(), up.grad)  # the gradient of one call has the mantissa of bfloat16 ...
    policies.denoiser.proj(x.to(HALF)).backward(g.to(HALF) * 1e-3)
    assert not torch.equal(up.grad.to(HALF).float(), up.grad)  # ... and calls are added up in float32


def test_a_layer_keeps_half_as_many_bytes_of_its_input_for_the_backward_pass() -> None:
    kept = {}
    for autocast in (False, True):
        policies, x, *_ = one_layer(autocast)
        with counted() as tensors:
            policies.denoiser.proj(x)
        kept[autocast] = sum(tensor.nbytes for tensor in tensors if tensor.shape == x.shape)
    assert kept == {False: 4 * x.numel(), True: 2 * x.numel()}


@contextmanager
def counted() -> Iterator[list[Tensor]]:
    """The tensors that autograd keeps for the backward pass."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


# An editor


def test_on_a_float32_editor_no_bit_changes(tiny_editor_path: Path) -> None:
    editors = [opened(tiny_editor_path, autocast=on, dtype=torch.float32) for on in (False, True)]
    inputs = inputs_of(editors[0])
    assert torch.equal(*(editor.velocity(*inputs) for editor in editors))
    assert all(map(torch.equal, *(gradients(editor, inputs) for editor in editors)))


def test_a_bfloat16_editor_is_as_near_to_float32_as_without_autocast(tiny_editor_path: Path) -> None:
    """Of the same weights: what the denoiser itself rounds is more than what the LoRA's products round."""
    right = opened(tiny_editor_path, autocast=False, dtype=torch.float32)
    errors: dict[bool, tuple[float, float]] = {}
    for on in (False, True):
        editor = opened(tiny_editor_path, autocast=on)
        with torch.no_grad():
            for weight, rounded in zip(right.denoiser.parameters(), editor.denoiser.parameters(), strict=True):
                weight.copy_(rounded)
        conditioning, latents, _ = inputs_of(editor)
        inputs = conditioning, latents.to(HALF).float(), torch.tensor([0.25, 0.75])
        whole = in_float32(conditioning), *inputs[1:]
        pairs = zip(gradients(editor, inputs), gradients(right, whole), strict=True)
        found, want = (torch.cat([each.flatten() for each in side]) for side in zip(*pairs, strict=True))
        with torch.no_grad():
            errors[on] = relative(editor.velocity(*inputs), right.velocity(*whole)), relative(found, want)
    for with_it, without in zip(errors[True], errors[False], strict=True):
        assert 0 < with_it < 1.3 * without < 0.1


def in_float32(conditioning: Conditioning) -> Conditioning:
    def widen(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() else tensor

    parts = {name: map_tensors(getattr(conditioning, name), widen) for name in ("rows", "shared", "source")}
    return replace(conditioning, **parts, dtype=torch.float32, time_dtype=torch.float32)


def test_the_reference_does_not_change_and_rollouts_replay_bit_for_bit(tiny_editor_path: Path) -> None:
    plain, editor = (opened(tiny_editor_path, autocast=on) for on in (False, True))
    inputs = inputs_of(plain)
    with torch.no_grad(), plain.policies.using("reference"), editor.policies.using("reference"):
        assert torch.equal(plain.velocity(*inputs), editor.velocity(*inputs))
    assert not torch.equal(plain.velocity(*inputs), editor.velocity(*inputs))
    for policy in POLICIES:
        with editor.policies.using(policy):
            assert editor.self_check(make(editor)) == [0, 0]


def test_checkpointing_changes_no_gradient_of_it(tiny_editor_path: Path) -> None:
    editor = opened(tiny_editor_path, autocast=True)
    inputs = inputs_of(editor)
    right = gradients(editor, inputs)
    checkpoint_blocks(editor.denoiser, lambda: editor.policies)
    for policy in POLICIES:
        assert all(map(torch.equal, gradients(editor, inputs, during=editor.policies.using(policy)), right))


def test_its_weights_take_steps_that_bfloat16_would_lose(tiny_editor_path: Path) -> None:
    editor = opened(tiny_editor_path, autocast=True)
    editor.velocity(*inputs_of(editor)).square().mean().backward()
    moved = [weight for _, weight in editor.policies.parameters() if weight.grad is not None and weight.grad.any()]
    before = [weight.detach().clone() for weight in moved]
    optimizer = torch.optim.AdamW(moved, lr=1e-6, weight_decay=0)
    optimizer.step()
    assert {tensor.dtype for state in optimizer.state.values() for tensor in state.values()} == {torch.float32}
    assert len(moved) > 10
    for weight, was in zip(moved, before, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight - was, -1e-6 * weight.grad.sign(), rtol=0, atol=1e-6)
        assert not torch.equal(weight, was)


def test_what_is_saved_is_what_is_saved_without_it(tiny_editor_path: Path, tmp_path: Path) -> None:
    files = []
    for on in (False, True):
        editor = opened(tiny_editor_path, autocast=on)
        editor.policies.save(tmp_path / str(on), "default")
        editor.policies.load(tmp_path / "False", "old")
        assert editor.policies.on_policy
        (file,) = (tmp_path / str(on)).iterdir()
        files.append(file.read_bytes())
    assert files[0] == files[1]


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_on_an_int8_denoiser_it_is_as_near_as_on_its_own_format(tiny_editor_path: Path) -> None:
    plain, editor = (opened(tiny_editor_path, autocast=on, quantize="int8") for on in (False, True))
    inputs = inputs_of(plain)
    found, want = (torch.cat([g.flatten() for g in gradients(each, inputs)]) for each in (editor, plain))
    assert 0 < relative(found, want) < 0.05
    with editor.policies.using("old"):
        editor.self_check(make(editor))


@pytest.mark.skipif(not torch.cuda.is_available() or find_spec("bitsandbytes") is None, reason="takes a GPU")
def test_on_an_nf4_denoiser_it_is_as_near_as_without(tiny_editor_path: Path) -> None:
    editors = []
    for on in (False, True):
        editor = open_editor(tiny_editor_path, dtype=HALF, device="cuda", pixels=PIXELS, quantize="nf4")
        editor.add_policies(AdapterConfig(rank=3, alpha=12, autocast=on))
        editors.append(editor)
    conditioning, x_t, t = inputs_of(editors[0])
    with torch.no_grad():
        want, found = (editor.velocity(conditioning, x_t, t.to(x_t.device)) for editor in editors)
    assert relative(found, want) < 0.05


def test_a_layer_that_is_not_linear_is_refused() -> None:
    for layer in (nn.Conv2d(3, 4, 3), nn.Embedding(5, 4)):
        denoiser = nn.ModuleDict({"proj": layer})
        with pytest.raises(UserError, match=r"adapter\.autocast: proj is no linear layer"):
            LoraPolicies(denoiser, "transformer", AdapterConfig(autocast=True), ["proj"], 0)


def test_full_training_is_refused() -> None:
    tree = {"editor": {"path": "toy"}, "judge": {"path": "toy"}, "data": {"kind": "toy"}}
    with pytest.raises(ValidationError, match=r'adapter\.autocast is for a LoRA, but adapter\.mode "full"'):
        Config.model_validate({**tree, "adapter": {"mode": "full", "autocast": True}})


# Runs


@pytest.mark.long
def test_a_run_that_is_stopped_goes_on_bit_for_bit(tiny_editor_path: Path, tmp_path: Path) -> None:
    def train(out: str, steps: int) -> None:
        config = settings(editor__dtype="bfloat16", adapter__autocast=True, steps=steps)
        editor = open_editor(tiny_editor_path, dtype=HALF, pixels=1024)
        Trainer(config, editor, RedJudge(), Colours(), tmp_path / out).train()

    train("whole", 4)
    train("parts", 2)
    train("parts", 4)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_run_does_not_change_it_half_way(tiny_editor_path: Path, tmp_path: Path) -> None:
    for on in (False, True):
        editor = open_editor(tiny_editor_path, dtype=HALF, pixels=1024)
        config = settings(editor__dtype="bfloat16", adapter__autocast=on, steps=1)
        if on:
            with pytest.raises(UserError, match=r"adapter\.autocast: False there, True here"):
                Trainer(config, editor, RedJudge(), Colours(), tmp_path)
        else:
            Trainer(config, editor, RedJudge(), Colours(), tmp_path).train()


@pytest.mark.long
def test_ranks_that_share_the_weights_compute_what_one_process_does(
    tmp_path: Path, pipeline_path: Callable[[str], Path]
) -> None:
    folder = pipeline_path("QwenImageEditPlusPipeline")
    run_ranks(Path(autocast_rank.__file__), tmp_path, folder)
    for number in range(rank.RANKS):
        want = rank.work(autocast_rank.opened(folder), seed=number, autocast=True)
        got = load_file(tmp_path / f"{number}.safetensors")
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
