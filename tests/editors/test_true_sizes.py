"""Published editors in their true width, sharded over 8 and 64 ranks that do not exist: no weights, no GPU.

Tensors are fake (shapes alone) and so is the process group. What is proven: the model, its policies and the sharding
fit each other, how many bytes a rank holds, and how many operations a training call needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel, QwenImageTransformer2DModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from editr1.algorithms.ema import EMA
from editr1.config.settings import AdapterConfig
from editr1.editors.families import FAMILIES
from editr1.editors.memory import checkpoint_blocks
from editr1.editors.policies import LoraPolicies, ShardedPolicies
from editr1.editors.sharding import open_mesh, shard_denoiser
from editr1.training.exchange import total_norm

SIDE, TEXT = 32, 512  # tokens of 16x16 pixels along a side of 512, and of the instruction
TOKENS = 2 * SIDE**2  # the edit's and the source's
KLEIN = {  # FLUX.2-klein-4B, transformer/config.json
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """An editor as published.

    Attributes:
        family: Name of its pipeline.
        build: The denoiser with a number of blocks of each kind.
        inputs: Arguments of one row.
        blocks: Blocks of each kind.
        parameters: In billions.
    """

    family: str
    build: Callable[[tuple[int, ...]], nn.Module]
    inputs: Callable[[], Inputs]
    blocks: tuple[int, ...]
    parameters: float


def tokens(width: int, text_width: int) -> Inputs:
    dtype = torch.bfloat16
    return {
        "hidden_states": torch.zeros(1, TOKENS, 64 if width == 0 else width, dtype=dtype),
        "encoder_hidden_states": torch.zeros(1, TEXT, text_width, dtype=dtype),
        "timestep": torch.zeros(1, dtype=dtype),
    }


def flux_ids(axes: int) -> Inputs:
    return {"img_ids": torch.zeros(TOKENS, axes), "txt_ids": torch.zeros(TEXT, axes)}


EDITORS = {
    "Qwen-Image-Edit": Published(
        "QwenImageEditPipeline",
        lambda n: QwenImageTransformer2DModel(num_layers=n[0]),
        lambda: {
            **tokens(64, 3584),
            "encoder_hidden_states_mask": None,
            "img_shapes": [[(1, SIDE, SIDE), (1, SIDE, SIDE)]],
        },
        (60,),
        20.43,
    ),
    "FLUX.1 Kontext": Published(
        "FluxKontextPipeline",
        lambda n: FluxTransformer2DModel(num_layers=n[0], num_single_layers=n[1], guidance_embeds=True),
        lambda: {
            **tokens(64, 4096),
            **flux_ids(3),
            "pooled_projections": torch.zeros(1, 768, dtype=torch.bfloat16),
            "guidance": torch.zeros(1, dtype=torch.bfloat16),
        },
        (19, 38),
        11.9,
    ),
    "FLUX.2 klein": Published(
        "Flux2KleinPipeline",
        lambda n: Flux2Transformer2DModel(num_layers=n[0], num_single_layers=n[1], **KLEIN),
        lambda: {**tokens(128, 7680), **flux_ids(4), "guidance": None},
        (5, 20),
        3.88,
    ),
}


@dataclass(frozen=True)
class Size:
    """What a rank holds and computes.

    Attributes:
        weights: Parameters of the whole denoiser.
        own: Those that this rank holds.
        lora: Parameters of one adapter, whole on each rank.
        flops: Operations of a call with gradient and its backward pass, one row.
    """

    weights: int
    own: int
    lora: int
    flops: int


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process group of as many ranks that sends nothing."""
    dist.init_process_group("fake", rank=0, world_size=request.param, store=FakeStore())
    yield request.param
    dist.destroy_process_group()


def sharded(editor: Published, blocks: tuple[int, ...], ranks: int, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """The denoiser, spread over all ranks, and the mode in which its tensors are fake."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with init_empty_weights():
            denoiser = editor.build(blocks).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    mesh = open_mesh(ranks, ranks, "cpu")
    assert mesh is not None
    shard_denoiser(denoiser, mesh)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        denoiser.load_state_dict({name: filled(part) for name, part in denoiser.state_dict().items()}, assign=True)
    return denoiser, fake


def measure(editor: Published, blocks: tuple[int, ...], ranks: int) -> Size:
    """Build, shard over all ranks, add the policies, and run forward and backward with gradient checkpointing."""
    denoiser, fake = sharded(editor, blocks, ranks, torch.bfloat16)
    weights = sum(weight.numel() for weight in denoiser.parameters())
    own = sum(part.numel() for part in parts(denoiser.parameters()))
    record = FAMILIES[editor.family]
    policies = LoraPolicies(denoiser, record.denoiser, AdapterConfig(), record.lora_targets, seed=0)
    checkpoint_blocks(denoiser, lambda: policies)
    with fake, FlopCounterMode(display=False) as flops:
        output: Tensor = denoiser(**editor.inputs(), return_dict=False)[0]
        output.float().sum().backward()
    trained = [weight for _, weight in policies.parameters()]
    without = [name for name, weight in policies.parameters() if weight.grad is None]
    assert not [name for name in without if ".to_q." in name], without  # the last block's text goes nowhere
    assert {weight.dtype for weight in trained} == {torch.float32}
    return Size(weights, own, sum(weight.numel() for weight in trained), flops.get_total_flops())


def bytes_of_full_finetuning(editor: Published, blocks: tuple[int, ...], ranks: int) -> tuple[int, int]:
    """Parameters of the denoiser, and bytes that a rank holds after a step that trains them all, in float32."""
    denoiser, fake = sharded(editor, blocks, ranks, torch.float32)
    inputs = {name: value.float() if is_bfloat16(value) else value for name, value in editor.inputs().items()}
    with fake:
        policies = ShardedPolicies(denoiser)
        checkpoint_blocks(denoiser, lambda: policies)
        _names, params = zip(*policies.parameters(), strict=True)
        ema = EMA(policies.parameters(), 0.9)
        optimizer = torch.optim.AdamW(params, lr=1e-5)
        output: Tensor = denoiser(**inputs, return_dict=False)[0]
        with torch.no_grad(), policies.using("old"):
            old: Tensor = denoiser(**inputs, return_dict=False)[0]
        (output - old).square().sum().backward()
        total_norm(param.grad for param in params if param.grad is not None)
        optimizer.step()
        policies.follow(0.5)
        ema.update(0)
    moments = [moment for state in optimizer.state.values() for moment in state.values() if moment.ndim]
    gradients = [param.grad for param in params if param.grad is not None]
    weights = [weight for policy in policies.weights.values() for weight in policy.values()]
    held = parts([*weights, *ema.averages.values(), *moments, *gradients])
    return sum(param.numel() for param in params), sum(part.numel() * part.element_size() for part in held)


def is_bfloat16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16


def parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this rank holds of sharded tensors."""
    return [tensor.to_local() for tensor in tensors if isinstance(tensor, DTensor)]


def filled(part: Tensor) -> Tensor:
    """A sharded tensor on the meta device as one with a place in memory, which is fake."""
    if not isinstance(part, DTensor):
        return part
    local = torch.empty(part.to_local().shape, dtype=part.dtype)
    return DTensor.from_local(
        local, part.device_mesh, part.placements, run_check=False, shape=part.shape, stride=part.stride()
    )


def extrapolate(one: Size, two: Size, blocks: int) -> Size:
    """The size with more blocks of one kind, from those with one and two."""
    grown = (getattr(one, f.name) + (blocks - 1) * (getattr(two, f.name) - getattr(one, f.name)) for f in fields(Size))
    return Size(*grown)


@pytest.mark.parametrize(
    ("name", "world"),
    [("Qwen-Image-Edit", 8), ("Qwen-Image-Edit", 64), ("FLUX.1 Kontext", 8), ("FLUX.2 klein", 64)],
    indirect=["world"],
)
def test_a_rank_holds_its_share_of_a_published_editor_and_trains_it(name: str, world: int) -> None:
    """Blocks of each kind are added in turn; what they add is that of the whole editor, counted on its own."""
    editor = EDITORS[name]
    one = measure(editor, (1,) * len(editor.blocks), world)
    total, own, lora = one.weights, one.own, one.lora
    for kind, number in enumerate(editor.blocks):
        two = measure(editor, tuple(1 + (kind == k) for k in range(len(editor.blocks))), world)
        grown = extrapolate(one, two, number)
        total, own, lora = (
            total + grown.weights - one.weights,
            own + grown.own - one.own,
            lora + grown.lora - one.lora,
        )
        assert two.flops > one.flops
    with torch.device("meta"):
        whole = editor.build(editor.blocks)
    assert total == sum(weight.numel() for weight in whole.parameters())
    assert total / 1e9 == pytest.approx(editor.parameters, abs=0.01)
    assert total / world <= own <= 1.001 * total / world
    assert lora < 0.03 * total


@pytest.mark.parametrize("world", [8], indirect=True)
def test_a_block_of_qwen_image_edit_costs_as_many_operations_as_its_layers(world: int) -> None:
    """Forward, again for the backward pass, and backward through frozen weights: 3 x 2 x tokens x weights.

    Of the 12 width^2 weights of a stream, 4 are in attention and 8 in the MLP. Attention itself multiplies tokens x
    tokens twice. The LoRA adds less than two per cent.
    """
    editor = EDITORS["Qwen-Image-Edit"]
    one, two = (measure(editor, (n,), world) for n in (1, 2))
    width, length = 3072, TOKENS + TEXT
    layers = 3 * 2 * length * 12 * width**2
    attention = 2 * 2 * length**2 * width * (1 + 1 + 2.5)  # flash attention computes its scores again
    assert two.flops - one.flops == pytest.approx(layers + attention, rel=0.03)


@pytest.mark.parametrize("world", [8], indirect=True)
@pytest.mark.parametrize("name", EDITORS)
def test_full_finetuning_takes_28_bytes_per_parameter_of_a_ranks_shard(name: str, world: int) -> None:
    """Three policies, average, gradient and two moments, of 4 bytes each."""
    editor = EDITORS[name]
    parameters, held = bytes_of_full_finetuning(editor, (1,) * len(editor.blocks), world)
    # the last block's text goes nowhere: its weights have no gradient, so no moments
    assert 0.9 * 28 * parameters / world <= held <= 1.001 * 28 * parameters / world


@pytest.mark.slow
@pytest.mark.parametrize("world", [8, 64], indirect=True)
@pytest.mark.parametrize("name", EDITORS)
def test_whole_published_editors_fit_and_train(name: str, world: int) -> None:
    editor = EDITORS[name]
    size = measure(editor, editor.blocks, world)
    assert size.weights / 1e9 == pytest.approx(editor.parameters, abs=0.01)
    assert size.own <= 1.001 * size.weights / world
    if len(editor.blocks) == 1:
        one, two = (measure(editor, (n,), world) for n in (1, 2))
        assert size == extrapolate(one, two, editor.blocks[0])
