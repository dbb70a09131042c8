"""benchmarks/stale.py: its table in the docs, its figures against hand-made ones, and one run in small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from editr1.files import read_lines
from editr1.judges.open import open_judge, parse_judge
from tests.benchmarks.scripts import script
from tests.documents import read

SMALL = ("rollout.groups_per_step=2", "rollout.group_size=3", "rollout.steps=2", "algorithm.filter=off")


@pytest.fixture(scope="module")
def stale() -> Iterator[ModuleType]:
    """The script, imported as `python benchmarks/stale.py` does."""
    with script("stale") as module:
        yield module


def test_the_table_of_the_docs_is_that_of_the_results(stale: ModuleType) -> None:
    found, text = json.loads(stale.RESULT.read_text(encoding="utf-8")), read("docs/offline.md")
    assert stale.table(found) in text
    about = text[text.index("### What stale groups cost") : text.index(stale.table(found))]
    for words in ("after {steps} steps", "on {items} held-out items", "(seeds: {seeds})"):
        assert words.format(**found) in about


def test_gains_and_what_remains_of_a_step_are_compared_with_the_online_run_of_the_same_seed(
    stale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stale, "WAYS", {name: stale.WAYS[name] for name in ("online", "stale")})
    monkeypatch.setattr(stale, "STEPS", 1)
    parts = {"online": {"rollout": 2, "judge": 1, "train": 0.9, "rest": 0.1}, "stale": {"read": 2, "train": 8}}
    for way, seconds in parts.items():
        (tmp_path / "0" / way).mkdir(parents=True)
        rows = [{"seconds": seconds}, {"seconds": {"train": 99}}, {"seconds": seconds}]
        (tmp_path / "0" / way / stale.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    start, after, later = (stale.Measured(step, 0, [step / 10], [step / 5]) for step in range(3))
    curves = {"online": {0: stale.curve_of(start, [after])}, "stale": {0: stale.curve_of(start, [after, later])}}
    online, once, twice = stale.figures(curves, tmp_path)
    assert online["shares"] == [1] and once["shares"] == twice["shares"] == [pytest.approx(0.25 / 0.8)]
    assert once["oracle"]["more"] == pytest.approx(0) and once["judge"]["gain"] == pytest.approx(0.1)
    assert twice["oracle"]["gain"] == pytest.approx(0.4) and twice["judge"]["more"] == pytest.approx(0.1)


@pytest.mark.long
def test_stale_groups_begin_as_the_online_run_and_its_own_groups_repeat_it(
    stale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"STEPS": 2, "HELD_OUT": 2, "SMALL": SMALL, "OTHER": 0}.items():
        monkeypatch.setattr(stale, name, value)
    judge = open_judge(parse_judge("toy"))
    stale.make_untrained(0, tmp_path / "0" / "untrained", judge)
    for way in ("online", "stale", "replayed"):
        curve = stale.train(way, 0, tmp_path, judge)
        assert curve.steps == ([0, 2, 4] if way == "stale" else [0, 2])
        assert curve.gains["oracle"].shape == curve.gains["judge"].shape == (len(curve.steps), 2)

    online, others = (read_lines(tmp_path / "0" / way / stale.METRICS) for way in ("online", "stale"))
    assert others[0]["loss"] == online[0]["loss"] and others[1]["loss"] != online[1]["loss"]
    first, again = (
        stale.open_way(stale.WAYS[way], 0, tmp_path / "0", tmp_path / "0" / way, judge)
        for way in ("online", "replayed")
    )
    assert first.step == again.step == 2
    assert all(torch.equal(one, other) for one, other in zip(first.params, again.params, strict=True))

    edits = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png")}
    stale.make_untrained(0, tmp_path / "0" / "untrained", judge)
    stale.train("stale", 0, tmp_path, judge)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png")} == edits


def test_groups_in_order_are_those_of_the_steps_that_made_them_in_every_epoch(stale: ModuleType) -> None:
    sampler, place, drawn = stale.InOrder(4, 2, seed=3), 0, []
    for _ in range(3):
        items, place = sampler.draw(place)
        drawn.append(items)
    assert drawn == [[0, 1], [2, 3], [0, 1]]
