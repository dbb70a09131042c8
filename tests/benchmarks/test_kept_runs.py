"""benchmarks/kept_runs.py: measurements that are kept are those of the runs with the same settings and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest

from editr1.ablation.figures import read_curves
from editr1.ablation.grid import Grid
from editr1.ablation.runs import Measured, run_of, start_of
from editr1.errors import UserError
from tests.benchmarks.scripts import script

BY = {"commit": "0123456", "date": "2026-01-01", "machine": "a machine"}
VARIANTS = {"usual": (), "weak": ("algorithm.kl=0.1",)}
GRID = Grid(title="?", base="toy", variants=VARIANTS, steps=4, measured=(2,), seeds=2)
OTHER = Grid(title="??", base="toy", variants={"kl_01": ("algorithm.kl=0.1",), "kl_0": ("algorithm.kl=0",)}, steps=4)


@pytest.fixture(scope="module")
def kept_runs() -> Iterator[ModuleType]:
    """The script, imported as `python benchmarks/claims.py` does."""
    with script("kept_runs") as module:
        yield module


def measured(step: int) -> Measured:
    """A measurement of two edits."""
    return Measured(step, 96 * step, [0.5, None], [0.1 * step, 1 / 3], [0.0, 1.0], [1.0, 0.25])


def fill(grid: Grid, out: Path, variant: str, seed: int, *steps: int) -> None:
    """A run that is measured after these steps."""
    config, lines = run_of(grid, variant, seed, out)
    lines.append([asdict(measured(step)) for step in steps])
    start = start_of(grid, config, out)
    if not start.rows:
        start.append([asdict(measured(0))])


def test_a_grid_goes_on_elsewhere_from_the_kept_measurements(kept_runs: ModuleType, tmp_path: Path) -> None:
    here, there, kept = (tmp_path / name for name in ("here", "there", "kept"))
    fill(GRID, here, "usual", 0, 2, 4)
    fill(GRID, here, "weak", 0, 2)
    assert kept_runs.keep(GRID, here, BY, kept) == [{**BY, "runs": 2}]
    seconds = {"usual": {"seconds": 1.0}}
    assert kept_runs.take(GRID, there, seconds, kept) == 3
    for variant, rows in {"usual": 2, "weak": 1}.items():
        config, lines = run_of(GRID, variant, 0, there)
        assert [row.step for row in lines.rows] == [2, 4][:rows]
        assert lines.path.read_bytes() == run_of(GRID, variant, 0, here)[1].path.read_bytes()
        assert start_of(GRID, config, there).rows == [measured(0)]
    assert not run_of(GRID, "usual", 1, there)[1].rows
    assert json.loads((there / "seconds.json").read_text()) == seconds
    assert kept_runs.take(GRID, there, seconds, kept) == 0


def test_runs_of_equal_settings_are_shared_by_grids_and_others_are_not(kept_runs: ModuleType, tmp_path: Path) -> None:
    fill(GRID, tmp_path / "grid", "usual", 0, 2, 4)
    fill(GRID, tmp_path / "grid", "weak", 0, 2, 4)
    kept_runs.keep(GRID, tmp_path / "grid", BY, tmp_path / "kept")
    kept_runs.take(OTHER, tmp_path / "other", {}, tmp_path / "kept")
    found = {name: len(run_of(OTHER, name, 0, tmp_path / "other")[1].rows) for name in OTHER.variants}
    assert found == {"kl_01": 2, "kl_0": 0}
    assert kept_runs.take(OTHER.model_copy(update={"items": 9}), tmp_path / "fewer", {}, tmp_path / "kept") == 0
    assert not (tmp_path / "fewer").exists()


def test_a_run_that_went_on_for_another_grid_counts_up_to_the_last_step_of_this_one(tmp_path: Path) -> None:
    fill(GRID, tmp_path, "usual", 0, 2, 4, 8)
    assert read_curves(GRID, tmp_path)["usual"][0].steps == [0, 2, 4]


def test_runs_of_an_editor_that_is_not_of_the_package_are_not_kept(kept_runs: ModuleType, tmp_path: Path) -> None:
    made_here = GRID.model_copy(update={"overrides": ("editor.path=runs/worsened/qwen-image-edit",)})
    assert kept_runs.can_keep(GRID) and not kept_runs.can_keep(made_here)
    with pytest.raises(UserError, match="made by a script, so its runs are not kept"):
        kept_runs.keep(made_here, tmp_path / "grid", BY, tmp_path / "kept")


def test_only_a_run_with_more_measurements_replaces_what_is_kept_and_each_has_its_maker(
    kept_runs: ModuleType, tmp_path: Path
) -> None:
    later, out, kept = {**BY, "commit": "89abcde"}, tmp_path / "out", tmp_path / "kept"
    fill(GRID, out, "usual", 0, 2, 4)
    fill(GRID, out, "weak", 0, 2)
    kept_runs.keep(GRID, out, BY, kept)
    before = {path: path.read_bytes() for path in kept.iterdir()}
    fill(GRID, out, "weak", 0, 4)
    fill(GRID, out, "weak", 1, 2)
    assert kept_runs.keep(GRID, out, later, kept) == [{**later, "runs": 2}, {**BY, "runs": 1}]
    assert sum(path.read_bytes() == content for path, content in before.items()) == 2
    kept_runs.take(GRID, tmp_path / "new", {}, kept)
    fill(GRID, tmp_path / "new", "usual", 1, 2)
    assert kept_runs.take(GRID, out, {}, kept) == 0
