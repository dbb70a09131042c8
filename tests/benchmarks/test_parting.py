"""benchmarks/parting.py: where judge and oracle part, what the run's alarms said, and what the page tells of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from editr1.ablation import figures
from editr1.ablation.grid import Grid
from editr1.ablation.page import write_ablation
from editr1.ablation.runs import Measured, run_of, start_of
from editr1.errors import UserError
from editr1.training.run_files import AFTER
from tests.benchmarks.scripts import script
from tests.report.synthetic import write_demo

GAINS = dict[int, tuple[float, float]]
"""Gains of oracle and judge by step."""


@pytest.fixture(scope="module")
def claims() -> Iterator[ModuleType]:
    """The script, imported as `python benchmarks/claims.py` does."""
    with script("claims") as module:
        yield module


@pytest.fixture(scope="module")
def parting(claims: ModuleType) -> Any:
    """What claims.py imports."""
    return claims.parting


def entry(gain: float, half: float = 0.01) -> dict[str, Any]:
    return {"gain": gain, "ci95": [gain - half, gain + half]}


def variant(gains: GAINS, **more: Any) -> dict[str, Any]:
    steps = {str(at): {"oracle": entry(oracle), "judge": entry(judge)} for at, (oracle, judge) in gains.items()}
    return {"steps": steps, **more}


def change(value: float, half: float) -> dict[str, Any]:
    return {"change": value, "ci95": [value - half, value + half]}


def ablation(gains: GAINS, **more: Any) -> dict[str, Any]:
    return {"variants": {"weak": variant(gains, **more)}}


TURNS: GAINS = {10: (0.1, 0.1), 20: (0.3, 0.2), 30: (0.25, 0.4)}


@pytest.mark.parametrize(
    ("oracle", "judge", "said"),
    [(0.02, 0.05, "yes"), (0.06, 0.05, "not clearly"), (0.02, 0.3, "not clearly")],
)
def test_they_part_at_the_oracles_best_step_clearly_if_neither_interval_of_the_later_change_holds_0(
    parting: Any, oracle: float, judge: float, said: str
) -> None:
    rest = {"20": {"oracle": change(-0.05, oracle), "judge": change(0.2, judge)}}
    found = parting.parting_of(ablation(TURNS, rest=rest), "weak")
    assert (found["best"], found["last"], found["parts"]) == (20, 30, said)
    assert found["oracle"] == change(-0.05, oracle) and found["judge"] == change(0.2, judge)


def test_a_grid_that_was_added_without_later_changes_has_those_of_its_gains_and_no_interval(parting: Any) -> None:
    found = parting.parting_of(ablation(TURNS), "weak")
    assert (found["best"], found["parts"]) == (20, "not clearly")
    assert found["oracle"] == {"change": pytest.approx(-0.05), "ci95": None}


def test_an_oracle_that_only_falls_parts_from_a_rising_judge_at_the_untrained_editor(parting: Any) -> None:
    found = parting.parting_of(ablation({10: (-0.05, 0.1), 20: (-0.1, 0.2)}), "weak")
    assert (found["best"], found["parts"]) == (0, "yes")
    assert found["oracle"] == {"change": -0.1, "ci95": entry(-0.1)["ci95"]}


def test_they_do_not_part_where_both_fall_or_where_the_oracle_is_best_at_the_last_step(parting: Any) -> None:
    both_fall = parting.parting_of(ablation({10: (0.2, 0.2), 20: (0.1, 0.1)}), "weak")
    assert (both_fall["best"], both_fall["parts"]) == (10, "no")
    rises = parting.parting_of(ablation({10: (0.1, 0.1), 20: (0.2, 0.9)}), "weak")
    assert (rises["best"], rises["parts"], rises["oracle"]["change"]) == (20, "no", 0)


def test_a_variant_is_in_the_table_if_its_oracle_turned_or_an_alarm_sounded_or_its_alarms_are_not_known(
    parting: Any,
) -> None:
    rises: GAINS = {10: (0.1, 0.1), 20: (0.2, 0.2)}
    runs = {"0": {"drift": 22, "falls": 25}, "1": {"drift": 18}, "2": {}, "3": None}
    told = {
        "turned": variant({10: (0.2, 0.1), 20: (0.1, 0.2)}, alarms={"0": {}}),
        "heard": variant(rises, alarms=runs),
        "silent": variant(rises, alarms={"0": {}}),
        "older": variant(rises),
    }
    found = parting.partings_of({"variants": told})
    assert {row["name"]: row["alarms"] for row in found["rows"]} == {
        "turned": "none",
        "heard": "drift at steps 18 to 22 (2 of 3 runs); falls at step 25 (1 of 3 runs)",
        "older": "not kept",
    }
    assert found["alarms"] and found["others"]
    assert parting.partings_of({"variants": {"older": told["older"]}}) == {
        "rows": [],
        "others": True,
        "alarms": False,
    }
    assert parting.partings_of({"variants": {"once": variant({10: (0.1, 0.1)})}}) is None


def test_each_variant_has_a_panel_with_its_gains_their_intervals_the_parting_and_the_alarms(parting: Any) -> None:
    found = ablation(TURNS, alarms={"0": {"drift": 22, "falls": 25}, "1": {}})
    found["variants"]["steady"] = variant({10: (0.1, 0.1), 30: (0.3, 0.2)})
    figure = Figure(figsize=parting.size_of(found))
    parting.plot_curves(figure, found)
    weak, steady = figure.axes
    assert (weak.get_title(), steady.get_title()) == ("weak", "steady")
    oracle, judge, _, line, alarms = weak.lines
    assert points(oracle) == [[0, 10, 20, 30], [0.0, 0.1, 0.3, 0.25]]
    assert points(judge) == [[0, 10, 20, 30], [0.0, 0.1, 0.2, 0.4]]
    assert points(line)[0] == [20, 20] and line.get_linestyle() == ":", "not clearly: no interval is known"
    assert points(alarms)[0] == [22], "the first alarm of the one run that had any"
    bands = [collection.get_paths()[0].get_extents().bounds for collection in weak.collections]
    assert bands == [pytest.approx((0, 0, 30, 0.31)), pytest.approx((0, 0, 30, 0.41))]
    assert points(steady.lines[-1]) == [[], []] and len(steady.lines) == 4, "neither a parting nor an alarm"


def points(line: Line2D) -> list[list[float]]:
    """The two coordinates of its points."""
    return np.asarray(line.get_data()).tolist()


def test_the_shipped_hacking_grid_is_told_with_its_parting_its_alarms_and_stopping_early(
    claims: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "RESAMPLES", 200)
    grid = claims.grid_of("hacking").model_copy(update={"seeds": 2})
    falls = {10: (0.25, 0.25), 20: (0.125, 0.5), 30: (0.0625, 0.75)}
    rises = {10: (0.0625, 0.0625), 20: (0.125, 0.125), 30: (0.25, 0.25)}
    for name in grid.variants:
        for seed in range(grid.seeds):
            fill(grid, tmp_path, name, seed, falls if name == grid.first else rises)
    write_ablation(grid, tmp_path)
    claims.add("hacking", tmp_path, tmp_path / "kept")
    page = claims.page([], claims.read_ablations(tmp_path / "kept"))
    alarms = "drift without gain at steps 21 to 22 (2 of 2 runs)"
    fall, rise = "−0.188 [−0.188, −0.188]", "+0.500 [+0.500, +0.500]"
    assert f"| weak_kl | 10 | {fall} | {rise} | yes | {alarms} |\n" in page
    assert "\nOf the others the oracle is at its best at the last step, and no alarm sounded.\n" in page
    gain = "+0.250 [+0.250, +0.250]"
    assert f"| weak_kl, stopped at step 10 | | {gain} | +0.188 [+0.188, +0.188] | {gain} |\n" in page
    assert "](figures/hacking_steps.svg)" in page


def fill(grid: Grid, out: Path, name: str, seed: int, gains: GAINS) -> None:
    """A run of three edits that all gain the same; the first variant's alarm sounds."""
    config, lines = run_of(grid, name, seed, out)
    start = start_of(grid, config, out)
    if not start.rows:
        start.append([asdict(Measured(0, 0, [0.125] * 3, [0.125] * 3, alarms={}))])
    rows = []
    for step, (oracle, judge) in gains.items():
        alarms = {"drift without gain": 21 + seed} if name == grid.first and step == 30 else {}
        rows.append(Measured(step, 96 * step, [0.125 + judge] * 3, [0.125 + oracle] * 3, alarms=alarms))
    lines.append([asdict(row) for row in rows])


def test_the_edits_that_fool_the_judge_are_drawn_for_the_page(
    claims: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PLOTS", tmp_path / "figures")
    (tmp_path / "figures").mkdir()
    out, grid = tmp_path / "out", claims.grid_of("kl")
    with pytest.raises(UserError, match="edits is missing: kept measurements hold no edits; train the run: editr1 abl"):
        claims.picture("kl", out, "kl_0")
    with pytest.raises(UserError, match="'kl_9' is no variant of kl; it has kl_1, "):
        claims.picture("kl", out, "kl_9")
    write_demo(tmp_path / "demo")
    config, _ = run_of(grid, "kl_0", 0, out)
    places: Mapping[str, Path] = {
        "before": start_of(grid, config, out).path.parent / "edits",
        "after": config.out / AFTER,
    }
    for when, place in places.items():
        place.parent.mkdir(parents=True)
        (tmp_path / "demo/evaluation" / when).rename(place)
    path = claims.picture("kl", out, "kl_0")
    assert path.name == "kl_fooled_kl_0.png" and path.read_bytes().startswith(b"\x89PNG")
    found = {"variants": {name: variant({}, settings=[], timed=None) for name in grid.variants}}
    assert claims.sheet_of("kl", found)["pictures"] == {"kl_0": "kl_fooled_kl_0.png"}
