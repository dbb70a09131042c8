"""Compiled blocks on several ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_torchrun import train
from tests.training.test_ranks import FIRST, SAME, weights


@pytest.mark.slow
def test_two_ranks_with_compiled_blocks_make_the_run_of_one_process_with_them(tmp_path: Path) -> None:
    one, two = (train(ranks, "toy", tmp_path / str(ranks), "steps=2", "memory.compile=true") for ranks in (1, 2))
    for key in FIRST:
        assert two[0].get(key) == one[0].get(key), key
    for row, other in zip(one, two, strict=True):
        assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
    expected = weights(tmp_path / "1")
    assert (weights(tmp_path / "2") - expected).norm() <= 1e-5 * expected.norm()
