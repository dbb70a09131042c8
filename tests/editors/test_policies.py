"""Three policies in one denoiser: who computes, who is trained, what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from editr1.config.settings import AdapterConfig
from editr1.editors.editor import Editor
from editr1.editors.one_frame import skip_absent_frames
from editr1.editors.open import open_editor
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from tests.tiny import PIXELS, shake, tiny_sample

Mode = Literal["lora", "full"]
MODES: list[Mode] = ["lora", "full"]
Inputs = tuple[Conditioning, Tensor, Tensor]


def prepare(editor: Editor, mode: Any = "lora", **kwargs: Any) -> Inputs:
    """Policies, and something to call `editor.velocity` with."""
    inputs = inputs_of(editor)
    editor.add_policies(AdapterConfig(**{"mode": mode, "rank": 3, "alpha": 12, **kwargs}))
    return inputs


def inputs_of(editor: Editor) -> Inputs:
    rollout = editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    return rollout.conditioning, rollout.latents, torch.tensor([0.3, 0.8])


def velocity(editor: Editor, policy: Any, inputs: Inputs) -> Tensor:
    with torch.no_grad(), editor.policies.using(policy):
        return editor.velocity(*inputs)


@pytest.mark.parametrize("mode", MODES)
def test_all_policies_start_as_what_was_loaded(tiny_editor: Editor, mode: Mode) -> None:
    inputs = inputs_of(tiny_editor)
    loaded = tiny_editor.velocity(*inputs)
    tiny_editor.add_policies(AdapterConfig(mode=mode, rank=3, alpha=12))
    assert all(torch.equal(velocity(tiny_editor, policy, inputs), loaded) for policy in ("default", "old", "reference"))


@pytest.mark.parametrize("alpha", [12, 6])
def test_training_starts_from_a_lora_and_the_reference_is_without_it(
    tiny_editor_path: Path, tmp_path: Path, alpha: int
) -> None:
    """Whatever alpha the file was saved with: 12 there, 12 or 6 here."""
    first, second = (open_editor(tiny_editor_path, pixels=PIXELS) for _ in range(2))
    inputs = prepare(first)
    shake(first)
    first.policies.save(tmp_path / "lora", "default")
    prepare(second, alpha=alpha, init=tmp_path / "lora")
    trained, loaded = velocity(first, "default", inputs), velocity(first, "reference", inputs)
    assert (trained - loaded).abs().max() > 1e-4
    for policy, want in {"default": trained, "old": trained, "reference": loaded}.items():
        torch.testing.assert_close(velocity(second, policy, inputs), want)
    assert second.policies.on_policy


def test_training_starts_from_a_lora_that_lost_its_alpha_at_the_scale_that_is_set(
    tiny_editor_path: Path, tmp_path: Path
) -> None:
    """The released conversion of Edit-R1 keeps the tensors alone; alpha / rank was 12 / 3."""
    first, second = (open_editor(tiny_editor_path, pixels=PIXELS) for _ in range(2))
    inputs = prepare(first)
    shake(first)
    first.policies.save(tmp_path, "default")
    (file,) = tmp_path.glob("*.safetensors")
    save_file(load_file(file), file)
    prepare(second, init=tmp_path, init_scale=4)
    for policy in ("default", "old"):
        torch.testing.assert_close(velocity(second, policy, inputs), velocity(first, "default", inputs))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"rank": 4}, "its rank is 3, adapter.rank is 4"), ({"targets": ("to_q",)}, "adapter.targets")],
)
def test_a_lora_that_does_not_fit_the_adapters_is_refused(
    tiny_editor_path: Path, tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    first, second = (open_editor(tiny_editor_path, pixels=PIXELS) for _ in range(2))
    prepare(first)
    first.policies.save(tmp_path / "lora", "default")
    with pytest.raises(UserError, match=problem):
        prepare(second, init=tmp_path / "lora", **settings)


@pytest.mark.parametrize("mode", MODES)
def test_training_moves_default_alone(tiny_editor: Editor, mode: Mode) -> None:
    inputs = prepare(tiny_editor, mode)
    start = velocity(tiny_editor, "reference", inputs)
    optimizer = torch.optim.SGD([weight for _, weight in tiny_editor.policies.parameters()], lr=0.1)
    tiny_editor.velocity(*inputs).square().mean().backward()
    optimizer.step()
    assert torch.equal(velocity(tiny_editor, "old", inputs), start)
    assert torch.equal(velocity(tiny_editor, "reference", inputs), start)
    assert (velocity(tiny_editor, "default", inputs) - start).abs().max() > 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_switching_between_forward_and_backward_keeps_defaults_gradients(tiny_editor: Editor, mode: Mode) -> None:
    inputs = prepare(tiny_editor, mode)
    shake(tiny_editor)
    weights = [weight for _, weight in tiny_editor.policies.parameters()]
    loss = tiny_editor.velocity(*inputs).square().sum()
    want = torch.autograd.grad(loss, weights, allow_unused=True)  # the last block's text output is not used
    v = tiny_editor.velocity(*inputs)
    with tiny_editor.policies.using("reference"), torch.no_grad():
        tiny_editor.velocity(*inputs)
    with tiny_editor.policies.using("old"):
        v_old = tiny_editor.velocity(*inputs)
        assert mode == "lora" or not v_old.requires_grad
        v.square().sum().backward()  # while "old" is active
    for weight, gradient in zip(weights, want, strict=True):
        if gradient is not None:
            torch.testing.assert_close(weight.grad, gradient, rtol=1e-5, atol=1e-5)
    used = [gradient for gradient in want if gradient is not None]
    assert len(used) > 0.8 * len(weights)
    assert sum(gradient.abs().sum() for gradient in used) > 1
    assert all(weight.grad is None for weight in tiny_editor.policies.weights["old"].values())


@pytest.mark.parametrize("mode", MODES)
def test_a_block_restores_the_policy_before_it_even_when_it_raises(tiny_editor: Editor, mode: Mode) -> None:
    inputs = prepare(tiny_editor, mode)
    shake(tiny_editor)
    want = velocity(tiny_editor, "default", inputs)
    with tiny_editor.policies.using("old"):
        with pytest.raises(RuntimeError, match="on purpose"), tiny_editor.policies.using("reference"):
            raise RuntimeError("on purpose")
        assert tiny_editor.policies.active == "old"
    assert torch.equal(tiny_editor.velocity(*inputs), want)


@pytest.mark.parametrize("mode", MODES)
def test_update_old_is_the_weighted_mean(tiny_editor: Editor, mode: Mode) -> None:
    prepare(tiny_editor, mode)
    shake(tiny_editor)
    weights = tiny_editor.policies.weights
    want = {k: 0.75 * old.double() + 0.25 * weights["default"][k].double() for k, old in weights["old"].items()}
    tiny_editor.policies.follow(0.75)
    for name, old in weights["old"].items():
        torch.testing.assert_close(old.double(), want[name], rtol=0, atol=1e-7)


def test_update_old_with_decay_0_makes_old_compute_as_default(tiny_editor: Editor) -> None:
    inputs = prepare(tiny_editor)
    shake(tiny_editor)
    tiny_editor.policies.follow(0.0)
    assert torch.equal(velocity(tiny_editor, "old", inputs), velocity(tiny_editor, "default", inputs))


def test_switching_equals_diffusers_own_adapter_methods(tiny_editor: Editor) -> None:
    inputs = prepare(tiny_editor)
    shake(tiny_editor, seed=1)
    tiny_editor.policies.follow(0.5)
    got = {policy: velocity(tiny_editor, policy, inputs) for policy in ("default", "old", "reference")}
    denoiser: Any = tiny_editor.denoiser
    for policy in ("default", "old"):
        denoiser.set_adapter(policy)
        assert torch.equal(tiny_editor.velocity(*inputs), got[policy])
    denoiser.disable_adapters()
    assert torch.equal(tiny_editor.velocity(*inputs), got["reference"])
    assert not torch.equal(got["default"], got["old"])


def test_lora_trains_only_its_own_matrices_on_the_familys_targets(tiny_editor: Editor) -> None:
    prepare(tiny_editor)
    trained = tiny_editor.policies.parameters()
    assert len(trained) == 2 * 2 * 8  # A and B, two blocks, eight projections
    assert trained[0][0] == "transformer_blocks.0.attn.to_q.lora_A.weight"
    assert {id(p) for _, p in trained} == {id(p) for p in tiny_editor.denoiser.parameters() if p.requires_grad}
    assert {weight.shape[0] for name, weight in trained if "lora_A" in name} == {3}


def test_full_trains_every_weight(tiny_editor: Editor) -> None:
    prepare(tiny_editor, "full")
    assert [n for n, _ in tiny_editor.policies.parameters()] == [n for n, _ in tiny_editor.denoiser.named_parameters()]


def test_lora_is_float32_on_a_bfloat16_editor_and_its_rollout_replays(tiny_editor_path: Path) -> None:
    editor = open_editor(tiny_editor_path, dtype=torch.bfloat16, pixels=PIXELS)
    prepare(editor)
    shake(editor)
    assert {weight.dtype for _, weight in editor.policies.parameters()} == {torch.float32}
    with editor.policies.using("default"):
        editor.self_check(editor.rollout(tiny_sample(), 3, steps=2, seed=0))


def test_lora_starts_from_its_seed_and_leaves_the_global_generator_alone(tiny_editor_path: Path) -> None:
    starts: list[Tensor] = []
    for seed in (1, 1, 2):
        editor = open_editor(tiny_editor_path, pixels=PIXELS)
        torch.manual_seed(len(starts))
        before = torch.get_rng_state()
        editor.add_policies(AdapterConfig(rank=3, alpha=12), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        starts.append(torch.cat([weight.detach().flatten() for _, weight in editor.policies.parameters()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_rollouts_use_the_active_policy(tiny_editor: Editor) -> None:
    prepare(tiny_editor)
    shake(tiny_editor, 0.2)
    latents = {}
    for policy in ("default", "old", "reference"):
        with tiny_editor.policies.using(policy):
            latents[policy] = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0).latents
    assert torch.equal(latents["old"], latents["reference"])
    assert (latents["default"] - latents["old"]).abs().max() > 1e-3


@pytest.mark.parametrize("policy", ["default", "old"])
def test_saved_lora_makes_the_same_edits_in_the_stock_pipeline(
    tiny_editor: Editor, tiny_editor_path: Path, tmp_path: Path, policy: Any
) -> None:
    prepare(tiny_editor)
    shake(tiny_editor, 0.2)
    tiny_editor.policies.follow(0.4)
    tiny_editor.policies.save(tmp_path, policy)
    pipe = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
    skip_absent_frames(pipe.vae)  # as ours, whose encodings differ by rounding
    pipe.load_lora_weights(tmp_path)
    fresh = Editor(pipe, tiny_editor.family, pixels=PIXELS)
    with tiny_editor.policies.using(policy):
        want = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)
    got = fresh.rollout(tiny_sample(), 2, steps=2, seed=0)
    assert torch.equal(got.latents, want.latents)
    pipe.disable_lora()
    assert not torch.equal(fresh.rollout(tiny_sample(), 2, steps=2, seed=0).latents, want.latents)


def test_saved_full_weights_load_with_from_pretrained(tiny_editor: Editor, tmp_path: Path) -> None:
    inputs = prepare(tiny_editor, "full")
    shake(tiny_editor)
    tiny_editor.policies.save(tmp_path / "new", "default")
    tiny_editor.policies.save(tmp_path / "old", "old")
    want = {policy: velocity(tiny_editor, policy, inputs) for policy in ("default", "old")}
    for folder, policy in (("new", "default"), ("old", "old")):
        tiny_editor.denoiser = QwenImageTransformer2DModel.from_pretrained(tmp_path / folder)
        assert torch.equal(tiny_editor.velocity(*inputs), want[policy])


@pytest.mark.parametrize("mode", MODES)
def test_loading_puts_saved_weights_into_the_same_parameters(
    tiny_editor: Editor, tiny_editor_path: Path, tmp_path: Path, mode: Mode
) -> None:
    inputs = prepare(tiny_editor, mode)
    shake(tiny_editor)
    tiny_editor.policies.save(tmp_path, "default")
    other = open_editor(tiny_editor_path, pixels=PIXELS)
    other.add_policies(AdapterConfig(rank=3, alpha=12, mode=mode), seed=9)
    held = [weight for _, weight in other.policies.parameters()]
    start = velocity(other, "old", inputs)
    other.policies.load(tmp_path, "default")
    assert torch.equal(velocity(other, "default", inputs), velocity(tiny_editor, "default", inputs))
    assert torch.equal(velocity(other, "old", inputs), start)
    assert all(a is b for a, (_, b) in zip(held, other.policies.parameters(), strict=True))


def test_weights_of_another_config_are_refused(tiny_editor: Editor, tiny_editor_path: Path, tmp_path: Path) -> None:
    prepare(tiny_editor)
    tiny_editor.policies.save(tmp_path, "default")
    for rank, targets, first in ((4, None, "add_k_proj.lora_A"), (3, ("to_q",), "add_k_proj.lora_A")):
        other = open_editor(tiny_editor_path, pixels=PIXELS)
        other.add_policies(AdapterConfig(rank=rank, targets=targets))
        with pytest.raises(UserError, match=rf"does not fit this editor: .*first .*{first}.*mode, rank, targets"):
            other.policies.load(tmp_path, "default")


def test_missing_and_broken_files_are_user_errors(tiny_editor: Editor, tmp_path: Path) -> None:
    prepare(tiny_editor)
    with pytest.raises(UserError, match="does not fit this editor"):
        tiny_editor.policies.load(tmp_path, "default")
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot read the weights in"):
        tiny_editor.policies.load(tmp_path, "default")


def test_each_target_must_exist(tiny_editor: Editor) -> None:
    with pytest.raises(UserError, match=r"no module 'to_qqq'; it has .*attn\.to_q"):
        tiny_editor.add_policies(AdapterConfig(rank=3, targets=("to_q", "to_qqq")))


def test_an_untrained_editor_has_the_reference_alone(tiny_editor: Editor, tmp_path: Path) -> None:
    policies = tiny_editor.policies
    assert (policies.active, policies.parameters(), policies.weights) == ("reference", [], {})
    with policies.using("reference"):
        pass
    with pytest.raises(KeyError, match=r"no policy 'old'; there are reference"), policies.using("old"):
        pass
    with pytest.raises(KeyError, match="no policy 'sampler' can be added"):
        policies.copy("sampler")
    with pytest.raises(KeyError, match="no policy 'default' with weights of its own; there are none"):
        policies.follow(0.5)
    with pytest.raises(KeyError, match="no policy 'default' with weights of its own"):
        policies.load(tmp_path, "default")
    with pytest.raises(KeyError, match="there is nothing to save"):
        policies.save(tmp_path, "reference")


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_computes_as_its_origin_did_and_does_not_follow_it(tiny_editor: Editor, mode: Mode) -> None:
    inputs = prepare(tiny_editor, mode)
    policies = tiny_editor.policies
    shake(tiny_editor)
    want = velocity(tiny_editor, "default", inputs)
    policies.copy("sampler", of="default")
    assert policies.active == "default"
    assert torch.equal(velocity(tiny_editor, "sampler", inputs), want)
    optimizer = torch.optim.SGD([weight for _, weight in policies.parameters()], lr=0.1)
    tiny_editor.velocity(*inputs).square().mean().backward()
    optimizer.step()
    assert torch.equal(velocity(tiny_editor, "sampler", inputs), want)
    assert (velocity(tiny_editor, "default", inputs) - want).abs().max() > 1e-5
    policies.copy("sampler", of="old")
    assert torch.equal(velocity(tiny_editor, "sampler", inputs), velocity(tiny_editor, "old", inputs))
    with pytest.raises(KeyError, match=r"no policy 'fourth' with weights of its own; there are .*default"):
        policies.copy("sampler", of="fourth")


@pytest.mark.parametrize("mode", MODES)
def test_gradients_belong_to_default_alone_beside_a_copy(tiny_editor: Editor, mode: Mode) -> None:
    inputs = prepare(tiny_editor, mode)
    policies = tiny_editor.policies
    shake(tiny_editor)
    weights = [weight for _, weight in policies.parameters()]
    want = torch.autograd.grad(tiny_editor.velocity(*inputs).square().sum(), weights, allow_unused=True)
    policies.copy("sampler")
    assert all(a is b for a, (_, b) in zip(weights, policies.parameters(), strict=True))
    loss = tiny_editor.velocity(*inputs).square().sum()
    with policies.using("sampler"):
        loss.backward()
    for weight, gradient in zip(weights, want, strict=True):
        assert weight.requires_grad
        assert gradient is None or (weight.grad is not None and torch.equal(weight.grad, gradient))
    others = [weight for name, tensors in policies.weights.items() if name != "default" for weight in tensors.values()]
    assert others and not any(weight.requires_grad or weight.grad is not None for weight in others)


@pytest.mark.parametrize("mode", MODES)
def test_the_policies_remember_whether_old_equals_default(tiny_editor: Editor, tmp_path: Path, mode: Mode) -> None:
    prepare(tiny_editor, mode)
    policies, memory = tiny_editor.policies, [tiny_editor.policies.on_policy]

    def after(change: Callable[[], None]) -> None:
        change()
        memory.append(policies.on_policy)

    shake(tiny_editor)
    after(lambda: policies.follow(0.3))
    policies.save(tmp_path / "behind", "old")
    after(lambda: policies.follow(0))
    policies.save(tmp_path / "new", "default")
    after(lambda: policies.load(tmp_path / "behind", "old"))
    after(lambda: policies.load(tmp_path / "new", "old"))
    after(lambda: policies.copy("sampler"))
    after(lambda: policies.load(tmp_path / "behind", "old"))
    after(lambda: policies.copy("old", of="default"))
    assert memory == [True, False, True, False, True, True, False, True]


def test_a_lora_does_not_change_the_number_format_that_diffusers_reads_off_a_denoiser(tiny_editor: Editor) -> None:
    """Pipelines cast latents to it; quantised weights in front of the LoRA have none."""
    tiny_editor.denoiser.to(torch.bfloat16)
    for layer in tiny_editor.denoiser.modules():
        if isinstance(layer, torch.nn.Linear):
            packed = torch.zeros(layer.weight.shape, dtype=torch.uint8)
            layer.weight = torch.nn.Parameter(packed, requires_grad=False)
            layer.register_parameter("bias", None)
    tiny_editor.add_policies(AdapterConfig(rank=3, alpha=12))
    assert tiny_editor.denoiser.dtype == torch.bfloat16
    assert {weight.dtype for _, weight in tiny_editor.policies.parameters()} == {torch.float32}
