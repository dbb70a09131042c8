"""What ranks send each other arrives as it was."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from editr1.editors.editor import Editor
from editr1.editors.families import FAMILIES
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from editr1.training.distributed import World, packed
from editr1.training.exchange import Portion, as_dict, broadcast, cut, gather_groups, sum_gradients
from editr1.training.gradient import count_rows
from editr1.training.rewarding import assign_advantages, assign_rewards, requests_of
from editr1.training.sharing import Share, share_rows
from editr1.training.step_row import joined, measure
from tests.editors.conftest import BUILDERS
from tests.tiny import tiny_sample
from tests.training.runs import Make

PIXELS = 64 * 96


class Wire(World):
    """Two ranks, one after the other: what rank 0 sends is kept, and rank 1 gets it."""

    kept: ClassVar[list[Any]] = []

    def broadcast_bytes(self, data: bytes, source: int) -> bytes:
        if self.rank != source:
            return self.kept.pop(0)
        self.kept.append(data)
        return data

    def broadcast_tensor(self, tensor: Tensor, source: int) -> Tensor:
        if self.rank != source:
            sent = self.kept.pop(0)
            assert (sent.shape, sent.dtype) == (tensor.shape, tensor.dtype)
            return sent
        self.kept.append(tensor.clone())
        return tensor


def sent(value: Any) -> Any:
    Wire.kept.clear()
    broadcast(Wire(0, 2), value, 0)
    received = broadcast(Wire(1, 2), None, 0)
    assert not Wire.kept
    return received


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_conditioning_of_every_family_travels_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    editor = Editor(BUILDERS[name](), FAMILIES[name], pixels=PIXELS)
    rollout = editor.rollout(tiny_sample(size=(96, 64)), 2, steps=2, seed=1, scheduler="euler")
    received = Conditioning(**sent(as_dict(rollout.conditioning)))
    x_t, t = rollout.latents[[0, 1, 0]], torch.tensor([0.3, 0.6, 0.9])
    with torch.no_grad():
        here, there = (editor.velocity(each, x_t, t) for each in (rollout.conditioning, received))
    assert torch.equal(here, there)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(2.5),
        torch.full((1,), 2.5).as_strided((1,), (0,)),  # FLUX.1 Kontext's guidance of a group of one row
        torch.tensor([2.5]).expand(1, 3),
        torch.arange(6.0).view(2, 3).t(),
        torch.tensor([[True, False]]),
        torch.arange(4, dtype=torch.bfloat16)[::2],
    ],
)
def test_the_bytes_of_any_tensor_can_be_sent(tensor: Tensor) -> None:
    raw = packed(tensor).reshape(-1).view(torch.uint8)
    assert torch.equal(raw.clone().view(tensor.dtype).reshape(tensor.shape), tensor)


def test_an_argument_that_cannot_travel_is_named() -> None:
    with pytest.raises(UserError, match=r"Generator.*one process"):
        sent({"generator": torch.Generator()})


def test_parts_of_a_group_are_joined_to_its_rewards_and_measures(make: Make) -> None:
    trainer = make(rollout__group_size=5)
    group = trainer.rollout(trainer.dataset[0], 0)
    assign_rewards(group, trainer.judge.score(requests_of(group)))
    parts = [cut(group, Share(0, first, count)) for first, count in ((0, 2), (2, 3))]
    (whole,), (both,) = gather_groups(World(), [group]), gather_groups(World(), parts[::-1])
    assert torch.equal(both.rewards, whole.rewards) and torch.equal(both.levels, whole.levels)
    expected, measures = asdict(measure(group)), asdict(both.measures)
    assert measures.pop("latent_norm") == pytest.approx(expected.pop("latent_norm"), rel=1e-6)
    assert measures == expected
    assert joined([measure(group)]) == measure(group)


@pytest.mark.parametrize("name", ["nft", "crd", "dgpo", "dpo", "rft"])
@pytest.mark.parametrize("ranks", [2, 8])
def test_eight_groups_at_once_give_the_gradient_of_eight_ranks_one_by_one(make: Make, ranks: int, name: str) -> None:
    trainer = make(rollout__groups_per_step=8, rollout__group_size=3, optim__micro_batch=4, algorithm__name=name)
    groups = trainer._collect()
    judged = gather_groups(trainer.world, groups)
    assign_advantages(judged, trainer.algorithm)
    whole = gradient(trainer, trainer._hand_out(groups, judged))
    counts = count_rows(trainer.algorithm, judged)
    parts = []
    for shares in share_rows(counts, ranks, batch=4):
        own = [
            Portion(share.index, group.rollout.conditioning, replace(judged[share.index].edits, latents=latents), share)
            for share in shares
            for group in [groups[share.index]]
            for latents in [group.rollout.latents]
        ]
        parts.append(gradient(trainer, own))
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-7)


def gradient(trainer: Any, portions: list[Portion]) -> Tensor:
    trainer.config = trainer.config.model_copy(
        update={"optim": trainer.config.optim.model_copy(update={"grad_clip": 1e9})}
    )
    trainer._backward(portions)
    return torch.cat([copy.deepcopy(param.grad).flatten() for param in trainer.params if param.grad is not None])


class Two(World):
    """A world of two ranks whose other one has no gradients."""

    def all_sum(self, tensors: Any, place: str, group: Any = None) -> None:
        assert all(torch.isfinite(tensor).all() for tensor in tensors)


def test_a_weight_without_gradient_on_any_rank_keeps_none() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    used.grad = torch.full((2,), 0.5)
    sum_gradients(Two(0, 2), [used, unused], torch.zeros(1))
    assert unused.grad is None and used.grad is not None and used.grad.tolist() == [0.5, 0.5]
