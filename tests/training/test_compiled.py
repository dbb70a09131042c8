"""Compiled blocks on several ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from editr1.editors.memory import compile_blocks
from tests.cli.test_torchrun import train
from tests.training.runs import Make, rows_of
from tests.training.test_ranks import FIRST, SAME, weights


@pytest.mark.slow
def test_the_fourth_step_compiles_nothing_and_the_run_is_that_without_compilation(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """The third step is the first that asks the sampling policy, which lags behind then; calls have 7 rows and 1."""
    torch.compiler.reset()
    changes = {"steps": 4, "rollout__group_size": 4, "optim__micro_batch": 7, "algorithm__old_rate": 0.3}
    plain = make(out="plain", **changes)
    compiled = make(out="compiled", **changes)
    compile_blocks(compiled.editor.denoiser)
    graphs: list[int] = []
    plain.train()
    compiled.train(on_step=lambda row: graphs.append(counters["stats"]["unique_graphs"]))
    assert 0 < graphs[0] <= graphs[2] == graphs[3]
    assert "were compiled" not in capsys.readouterr().err
    for row, other in zip(rows_of(plain.out), rows_of(compiled.out), strict=True):
        for key in ("reward_mean", "loss", "grad_norm"):
            assert other[key] == pytest.approx(row[key], rel=1e-3), key
    expected = weights(plain.out)
    assert (weights(compiled.out) - expected).norm() <= 1e-3 * expected.norm()


@pytest.mark.slow
def test_two_ranks_with_compiled_blocks_make_the_run_of_one_process_with_them(tmp_path: Path) -> None:
    one, two = (train(ranks, "toy", tmp_path / str(ranks), "steps=2", "memory.compile=true") for ranks in (1, 2))
    for key in FIRST:
        assert two[0].get(key) == one[0].get(key), key
    for row, other in zip(one, two, strict=True):
        assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
    expected = weights(tmp_path / "1")
    assert (weights(tmp_path / "2") - expected).norm() <= 1e-5 * expected.norm()
