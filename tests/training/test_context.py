"""Ranks that share the tokens of each call make the run of one process: real torchrun, gloo, a tiny pipeline.

Attention sums in another order, so latents differ in the last bits of float32. Where a pixel then rounds to its
neighbour, a reward changes by a millionth, and in later steps the gradient by 1e-4; weights differ by less than 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from editr1.files import read_lines
from editr1.training.distributed import World
from editr1.training.exchange import sum_gradients
from tests.ranks import torchrun
from tests.training.scenarios import trainer_of
from tests.training.test_ranks import SAME, weights

FAST = (2, ("lora", "some dropped", "references", "preferences", "pairs", "groups"))
SLOW = (2, ("full", "awm", "some unscored", "a judge that compares", "a remote judge", "cache", "checkpointing"))
TWO_PAIRS = (4, ("lora", "one group", "some dropped", "all dropped"))


def share_tokens(ranks: int, folder: Path, editor: Path, *names: str, until: int = 3) -> None:
    """Make runs on pairs of ranks."""
    options = ("tests.training.scenarios", "--context=2", f"--until={until}")
    result = torchrun(ranks, *options, str(folder), str(editor), *names)
    assert result.returncode == 0, result.stderr[-3000:]


def assert_same_run(one: Path, other: Path) -> None:
    rows, others = (read_lines(out / "metrics.jsonl") for out in (one, other))
    for row, same in zip(rows, others, strict=True):
        assert {key: row.get(key) for key in SAME} == {key: same.get(key) for key in SAME}
        for key in ("reward_mean", "reward_std_all", "loss"):
            value = row[key]  # the loss of a step without kept groups is None
            assert same[key] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)), key
    for policy in ("policy", "old", "ema"):
        expected = weights(one, policy)
        assert (weights(other, policy) - expected).norm() <= 1e-5 * expected.norm(), policy


@pytest.mark.long
@pytest.mark.parametrize(
    ("ranks", "names"), [FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in (SLOW, TWO_PAIRS))]
)
def test_pairs_of_ranks_make_the_run_of_one_process(
    ranks: int, names: tuple[str, ...], tiny_editor_path: Path, tmp_path: Path
) -> None:
    share_tokens(ranks, tmp_path / "pairs", tiny_editor_path, *names)
    for name in names:
        trainer_of(name, tmp_path / "alone" / name, tiny_editor_path).train()
        assert_same_run(tmp_path / "alone" / name, tmp_path / "pairs" / name)


@pytest.mark.long
def test_a_run_of_a_pair_goes_on_in_one_process(tiny_editor_path: Path, tmp_path: Path) -> None:
    share_tokens(2, tmp_path / "pair", tiny_editor_path, "lora", until=1)
    for folder in ("pair", "alone"):
        trainer_of("lora", tmp_path / folder / "lora", tiny_editor_path).train()
    assert ["imbalance" in row for row in read_lines(tmp_path / "pair/lora/metrics.jsonl")] == [True, False, False]
    assert_same_run(tmp_path / "alone" / "lora", tmp_path / "pair" / "lora")


def test_neighbours_are_one_worker_and_the_first_one_speaks() -> None:
    worlds = [World(rank, 6, context=2) for rank in range(6)]
    assert [world.worker for world in worlds] == [0, 0, 1, 1, 2, 2]
    assert [world.speaks for world in worlds] == [True, False] * 3
    assert {world.workers for world in worlds} == {3}
    assert (World().workers, World().worker, World().speaks) == (1, 0, True)


class Kept(World):
    """A rank whose sums over all ranks are what it sends."""

    def all_sum(self, tensors: Sequence[Tensor], place: str, group: ProcessGroup | None = None) -> None:
        pass


@pytest.mark.parametrize(("rank", "loss"), [(0, 3.0), (1, 0.0)])
def test_a_gradient_of_a_pair_is_in_parts_but_its_loss_counts_once(rank: int, loss: float) -> None:
    weight, sums = torch.nn.Parameter(torch.ones(2)), torch.tensor([3.0])
    weight.grad = torch.full((2,), 0.5)
    sum_gradients(Kept(rank, 2, context=2), [weight], sums)
    assert sums.tolist() == [loss] and weight.grad.tolist() == [0.5, 0.5]
