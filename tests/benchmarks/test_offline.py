"""benchmarks/offline.py: its entries say how they were made, and an entry leaves the others as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.scripts import script


def test_an_entry_holds_its_figures_and_how_they_were_made_beside_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with script("offline") as offline:
        before = json.loads(offline.RESULT.read_text())
        monkeypatch.setattr(offline, "RESULT", tmp_path / "offline.json")
        (tmp_path / "offline.json").write_text(json.dumps(before))
        shown = {"items": 2, "step": 3, "train_seconds": 4.5, "oracle": {"after": 1}, "judge": {"after": 0}, "more": 1}
        offline.keep("dpo-slow", ["optim.lr=1e-4", "judge={path: a b}"], shown)
        made = offline.results.origin("python benchmarks/offline.py --name dpo-slow optim.lr=1e-4 'judge={path: a b}'")
    after = json.loads((tmp_path / "offline.json").read_text())
    assert after.pop("dpo-slow") == {
        "overrides": ["optim.lr=1e-4", "judge={path: a b}"],
        "items": 2,
        "steps": 3,
        "train_seconds": 4.5,
        "oracle": {"after": 1},
        "judge": {"after": 0},
        "made": made,
    }
    assert after == before
    assert all(each["made"]["command"].startswith("python benchmarks/offline.py --name ") for each in after.values())
