from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from editr1.config.data import DataConfig
from editr1.data.pictures import read_picture
from editr1.evaluation.heldout.rows import EditRow
from editr1.toy.scene import draw, to_array
from editr1.toy.world import ToyDataset, item_from_key
from editr1.training.datasets import open_dataset
from tests.benchmarks.scripts import BENCHMARKS, script
from tests.documents import read


@pytest.fixture(scope="module")
def worsened() -> Iterator[ModuleType]:
    """The script, imported as `python benchmarks/worsened.py` does."""
    with script("worsened") as module:
        yield module


def test_a_damaged_target_has_the_edit_and_another_change_outside_of_what_the_edit_may_change(
    worsened: ModuleType,
) -> None:
    rng, spoilt = np.random.default_rng(0), 0
    for index in range(36):
        item = ToyDataset("sft", 36).item(index)
        target, found = draw(item.edit.target), draw(worsened.damaged(rng, item))
        if np.array_equal(found, target):
            continue
        changed, inside = np.abs(found - target).max(-1) > 0.08, item.mask() > 0
        assert (changed & ~inside).sum() > changed.sum() / 2
        assert changed[inside].mean() < 0.25  # a background shows through the edges of objects
        spoilt += 1
    assert spoilt == 29  # all but the 4 styles, which are of the whole picture, and 3 items of one or two objects


def test_pairs_are_read_as_stored_data_of_scenes_that_are_neither_trained_on_later_nor_held_out(
    worsened: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worsened, "PAIRS", 18)
    spoilt = worsened.write_pairs(tmp_path / "pairs")
    data = open_dataset(DataConfig(kind="pairs", path=tmp_path / "pairs"))
    assert len(data) == 18 and 0 < spoilt < 18
    as_asked = 0
    for index in range(18):
        item, sample = item_from_key(data[index].key), data[index]
        assert item.key.startswith("toy/small/sft/") and sample.instruction == item.edit.instruction
        assert np.abs(to_array(sample.source) - draw(item.scene)).max() <= 1 / 255
        target = to_array(read_picture(tmp_path / "pairs" / f"{index:04}-target.png", "no target"))
        as_asked += bool(np.abs(target - draw(item.edit.target)).max() <= 1 / 255)
    assert as_asked + spoilt <= 18


def test_measures_are_compared_edit_by_edit(worsened: ModuleType) -> None:
    def rows(done: float, *preserved: float) -> list[EditRow]:
        measures = [{"score": done * kept, "done": done, "preserved": kept} for kept in preserved]
        return [EditRow(str(n), "add", 0, "x", None, None, oracle, "") for n, oracle in enumerate(measures)]

    found = worsened.compare(rows(0.5, 0.9, 0.7), rows(0.5, 0.6, 0.4))
    assert found["done"] == {"before": 0.5, "after": 0.5, "delta": 0, "ci95": [0, 0]}
    assert (found["preserved"]["before"], found["preserved"]["after"]) == (pytest.approx(0.8), pytest.approx(0.5))
    assert found["preserved"]["ci95"] == pytest.approx([-0.3, -0.3])


def line_of(name: str) -> str:
    """The line of an editor in the table of the docs."""
    return next(line for line in read("docs/preservation.md").splitlines() if line.startswith(f"| worsened {name} |"))


def test_the_committed_editors_keep_clearly_less_and_the_docs_say_how_much(worsened: ModuleType) -> None:
    figures = json.loads(worsened.RESULT.read_text(encoding="utf-8"))
    for name, entry in figures.items():
        assert entry["oracle"]["preserved"]["ci95"][1] < -0.05
        for measure in ("done", "preserved"):
            found = entry["oracle"][measure]
            assert f"{found['before']:.2f} | {found['after']:.2f}" in line_of(name)
            assert "{:+.2f} [{:+.2f}, {:+.2f}]".format(found["delta"], *found["ci95"]) in line_of(name)


@pytest.mark.parametrize(
    "name", ["preserve_kontext", "preserve_worsened", "preserve_longer", "preserve_longer_kontext"]
)
def test_the_ways_are_the_same_in_every_grid(name: str) -> None:
    first, other = (yaml.safe_load((BENCHMARKS / "grids" / f"{each}.yaml").read_text()) for each in ("preserve", name))
    shared = first["variants"].keys() & other["variants"].keys()
    assert {"default", "mixed_03"} <= shared and other["seeds"] == first["seeds"]
    assert all(other["variants"][variant] == first["variants"][variant] for variant in shared)


def test_the_grid_starts_from_the_folder_that_the_script_makes_by_default(worsened: ModuleType) -> None:
    grid = yaml.safe_load((BENCHMARKS / "grids" / "preserve_worsened.yaml").read_text())
    assert grid["overrides"] == [f"editor.path={worsened.OUT / 'qwen-image-edit'}"]
