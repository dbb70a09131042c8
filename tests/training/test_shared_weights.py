"""Ranks that hold half of the weights each train on stored edits as one process does.

They read equally many items and call pipeline and text encoder equally often, though three items are no multiple of two
ranks: else they would wait for each other for ever.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.files import read_lines
from tests.ranks import torchrun
from tests.training.scenarios import trainer_of
from tests.training.test_ranks import SAME, weights

NAMES = ("preferences", "pairs", "pairs, all weights", "groups")


@pytest.mark.long
def test_ranks_that_share_the_weights_make_the_run_of_one_process_on_stored_edits(
    tiny_editor_path: Path, tmp_path: Path
) -> None:
    result = torchrun(2, "tests.training.scenarios", "--shard=2", str(tmp_path / "two"), str(tiny_editor_path), *NAMES)
    assert result.returncode == 0, result.stderr[-3000:]
    for name in NAMES:
        trainer_of(name, tmp_path / "one" / name, tiny_editor_path).train()
        rows, others = (read_lines(tmp_path / folder / name / "metrics.jsonl") for folder in ("one", "two"))
        for row, other in zip(rows, others, strict=True):
            assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
            assert other["loss"] == pytest.approx(row["loss"], rel=1e-4)
        for policy in ("policy", "old", "ema"):
            expected = weights(tmp_path / "one" / name, policy)
            assert (weights(tmp_path / "two" / name, policy) - expected).norm() <= 1e-5 * expected.norm()
