"""`torchrun -m editr1 demo`: ranks share its training and its evaluations, and the main one writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editr1.files import read_lines
from tests.ranks import torchrun
from tests.training.test_ranks import FIRST, weights


@pytest.mark.long
def test_two_ranks_show_the_demo_of_one_process(tmp_path: Path) -> None:
    said = {}
    for ranks in (1, 2):
        out = str(tmp_path / str(ranks))
        result = torchrun(ranks, "tests.cli.small_demo", "--out", out, "--minutes", "0.0001")  # over after one step
        assert result.returncode == 0, result.stderr[-3000:]
        said[ranks] = result.stdout
    one, two = (tmp_path / ranks for ranks in "12")
    for words in ("1/5", "2/5", "3/5", "4/5", "5/5", f"Report:  {two}/report.html", "18 held-out instructions"):
        assert said[2].count(words) == 1, words  # by the main rank alone
    names = [
        sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if "tb" not in path.parts)
        for out in (one, two)
    ]
    assert names[0] == names[1] and len([*(two / "tb").iterdir()]) == 1

    rows = [read_lines(out / "metrics.jsonl") for out in (one, two)]
    assert len(rows[0]) == len(rows[1]) == 1
    assert {key: rows[0][0].get(key) for key in (*FIRST, "watched")} == {
        key: rows[1][0].get(key) for key in (*FIRST, "watched")
    }
    expected = weights(one)
    assert (weights(two) - expected).norm() <= 1e-5 * expected.norm()

    before = [out / "evaluation" / "before" for out in (one, two)]
    assert [path.read_bytes() for path in sorted(before[0].iterdir())] == [
        path.read_bytes() for path in sorted(before[1].iterdir())
    ]
    results = [json.loads((out / "results.json").read_text()) for out in (one, two)]
    for name in ("judge", "oracle"):
        assert results[1][name]["after"] == pytest.approx(results[0][name]["after"], abs=2e-3)
