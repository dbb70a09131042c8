"""benchmarks/bench.py: its figures against hand-made ones, its report, and one run in small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from scipy.stats import linregress

from editr1.config.loading import load_config
from editr1.errors import UserError
from tests.benchmarks.scripts import BENCHMARKS, script

PARTS = ["memory", "identical", "floor", "cost", "gain"]
MADE = {
    "command": "python x.py",
    "date": "2026-11-27",
    "commit": "abc",
    "machine": "a machine",
    "versions": {"torch": "2"},
}


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """The benchmark, imported as `python benchmarks/bench.py` does."""
    with script("bench") as module:
        yield module


STEPS, LEVELS = ("none_dropped", "half_dropped"), ("", "_five_levels")


def gains(*values: float) -> dict[str, Any]:
    """A curve as results.json has it."""
    return {str(at): {"delta": value, "ci95": [0, 0]} for at, value in enumerate(values, start=1)}


def results_of(**changes: Any) -> dict[str, Any]:
    """Results of all parts that have a bar, each held, as they are read from the file."""
    calls = {way: {"judge": {"judge": 24}} for way in ("ours", "recipe", "fewest")}
    spread = {"median": 10.0, "least": 9.0, "most": 12.0}
    row: dict[str, Any] = {"recipe_gain": 0.01, "goal": 0.02, "ratio": 0.4}
    row |= {"steps": {"recipe": 10, "ours": 4}, "seconds": {"recipe": 300.0, "ours": 120.0}}
    whole = {
        **{f"identical_ratio{levels}": dict.fromkeys(STEPS, 0.6) for levels in LEVELS},
        **{f"identical_spread{levels}": {key: [0.5, 0.7] for key in STEPS} for levels in LEVELS},
        **{f"identical_seconds{levels}": {key: {"ours": 2.0, "recipe": 3.0} for key in STEPS} for levels in LEVELS},
        "calls": calls,
        "calls_half_dropped": calls,
        "floor_ratio": 0.95,
        "floor_spread": [0.93, 0.96],
        "floor_seconds": {"judge judge": 0.5, "train denoiser": 1.0, "step": 1.6},
        "rss_slope_mb_per_step": 0.01,
        "rss_mb": [900.0, 901.0],
        "startup_delta_s": 3.0,
        "startup_seconds": {"1000": [9.0, 8.0, 10.0], "1000000": [12.0, 11.0, 13.0]},
        "startup_peak_mb": {"1000": 800.0, "1000000": 1234.5},
        "cost": {"groups": {"8": {"median": 5.5, "least": 5.0, "most": 6.0, "images_per_hour": 62836.0}}},
        "images_per_device_hour": 62836.0,
        "judge_client": {"64x64": {"ratio": 0.98}, "512x512": {"ratio": 0.99}},
        "time_to_gain_ratio": {
            "ratio": 0.4,
            "ci95": [0.3, 0.5],
            "least": 0.02,
            "seeds": {"0": row},
            "seconds_per_step": {"ours": spread, "recipe": spread},
        },
        "time_to_reward": {"reward": 0.6, "ours": [55.0], "recipe": [None]},
        "gain_by_step": {"ours": {"0": gains(0.0, 0.05)}, "recipe": {"0": gains(0.0, 0.01)}},
        "made": dict.fromkeys(("identical", "floor", "memory", "startup", "cost", "gain", "judge_client"), MADE),
    }
    read: dict[str, Any] = json.loads(json.dumps({**whole, **changes}))
    return read


def test_the_slope_of_memory_is_that_of_the_least_squares_line(bench: ModuleType) -> None:
    held = [900.0, 903.0, 901.0, 908.0, 907.5]
    assert bench.memory.slope(held) == pytest.approx(linregress(range(5), held).slope)
    assert bench.memory.slope([3.0, 3.5, 4.0]) == pytest.approx(0.5)


def test_the_interval_of_three_seeds_is_students(bench: ModuleType) -> None:
    half = 4.302653 * 0.1 / 3**0.5  # t of 2 degrees of freedom, from a table
    assert bench.gain.interval([0.4, 0.5, 0.6]) == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)


@pytest.mark.parametrize(
    ("curve", "goal", "reached"),
    [
        ({2: 0.01, 4: 0.03, 6: 0.02, 8: 0.05}, 0.02, 4),
        ({2: 0.03, 4: 0.01, 6: 0.02}, 0.02, 6),  # the first rise was luck
        ({2: 0.03, 4: 0.01}, 0.02, None),
        ({}, 0.02, None),
    ],
)
def test_a_gain_is_reached_when_it_is_not_lost_again(
    bench: ModuleType, curve: dict[int, float], goal: float, reached: int | None
) -> None:
    assert bench.gain.reach(curve, goal) == reached


def test_a_reward_is_reached_when_the_mean_of_a_window_is(bench: ModuleType) -> None:
    assert bench.gain.reach_reward([0.9, 0.1, 0.5, 0.7, 0.8], 0.6, window=2) == 4
    assert bench.gain.reach_reward([0.9], 0.6, window=2) is None


def test_a_seed_is_compared_at_the_recipes_last_whole_step(bench: ModuleType) -> None:
    recipe, ours = {8: 0.01, 9: 0.04, 10: 0.9}, {2: 0.01, 4: 0.05, 6: 0.06}
    row = bench.gain.seed_row(recipe, ours, {"recipe": 38.0, "ours": 6.0})  # nine steps fit into 360 seconds
    assert row["recipe_gain"] == row["goal"] == 0.04
    assert row["steps"] == {"recipe": 9, "ours": 4}
    assert row["seconds"] == {"recipe": 342.0, "ours": 24.0} and row["ratio"] == pytest.approx(24 / 342)


def test_a_recipe_without_gain_sets_the_least_goal_and_ours_may_never_reach_it(bench: ModuleType) -> None:
    row = bench.gain.seed_row({9: -0.01}, {2: 0.01, 4: 0.015}, {"recipe": 38.0, "ours": 6.0})
    assert row["recipe_gain"] == -0.01 and row["goal"] == bench.gain.LEAST == 0.02
    assert row["steps"]["ours"] is row["seconds"]["ours"] is row["ratio"] is None


def test_a_recipe_that_was_not_measured_at_its_last_step_is_refused(bench: ModuleType) -> None:
    with pytest.raises(SystemExit, match="makes 9 steps in 360 s here and was measured after 8"):
        bench.gain.seed_row({8: 0.01}, {2: 0.05}, {"recipe": 38.0, "ours": 6.0})


def test_the_recipe_has_the_papers_constants_and_ours_the_toys(bench: ModuleType, tmp_path: Path) -> None:
    recipe, ours = (bench.gain.config_of(way, 1, tmp_path) for way in ("recipe", "ours"))
    sizes = recipe.rollout
    assert (sizes.group_size, sizes.groups_per_step, sizes.steps) == (12, 24, 6)
    assert (recipe.optim.lr, recipe.algorithm.kl, recipe.algorithm.std) == (3e-4, 1e-4, "global")
    assert recipe.algorithm.levels_per_edit(6) == 5 and recipe.adapter.targets is None
    assert (recipe.editor, recipe.judge, recipe.data) == (ours.editor, ours.judge, ours.data)
    assert (ours.rollout.groups_per_step, ours.optim.lr) == (8, 3e-3) and recipe.seed == ours.seed == 1


@pytest.mark.long
def test_both_phases_of_the_gain_are_put_together_and_what_is_there_is_not_made_again(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gain = bench.gain
    config_of = gain.config_of
    monkeypatch.setattr(gain, "config_of", lambda way, seed, out, small=True: config_of(way, seed, out, small=True))
    monkeypatch.setattr(gain, "whole_steps", lambda seconds: 2)
    for name, value in {"HELD_OUT": 2, "ROUNDS": 2, "MEASURED": {"ours": [1, 2]}, "LEAST": -1.0, "REWARD": 0.0}.items():
        monkeypatch.setattr(gain, name, value)
    assert not gain.is_whole(tmp_path)
    monkeypatch.setattr(gain, "SEEDS", (0,))
    gain.run_phases(tmp_path, ["time", "train"], ["recipe", "ours"], [0])
    assert gain.is_whole(tmp_path)
    edits = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*_1.png")}
    assert len(edits) == 4 * 2  # of two items: before, the recipe's last step, two steps of ours
    gain.run_phases(tmp_path, ["train"], ["recipe", "ours"], [0])
    assert {file: file.stat().st_mtime_ns for file in edits} == edits

    found = gain.put_together(tmp_path, [0])
    seconds = json.loads((tmp_path / gain.TIMING).read_text())["seconds"]
    curves = found["gain_by_step"]
    assert [*curves["recipe"][0]] == [2] and [*curves["ours"][0]] == [1, 2]
    row = found["time_to_gain_ratio"]["seeds"][0]
    assert row["recipe_gain"] == curves["recipe"][0][2]["delta"]
    assert row["seconds"]["recipe"] == pytest.approx(2 * sum(seconds["recipe"]) / 2)
    assert found["time_to_gain_ratio"]["ratio"] == row["ratio"] and found["time_to_gain_ratio"]["ci95"] is None
    assert found["time_to_reward"]["ours"] == [None]  # of fewer steps than the window has


def test_the_floor_is_rows_times_seconds_of_a_row(bench: ModuleType) -> None:
    rows = {"rollout": {"denoiser": 24}, "train": {"default": 12, "old": 6}, "judge": {"judge": 4}}
    seconds = {("rollout", "denoiser"): 0.5, ("train", "default"): 2.0, ("train", "old"): 0.5, ("judge", "judge"): 0.25}
    floor = {("rollout", "denoiser"): 12.0, ("train", "default"): 24.0, ("train", "old"): 3.0, ("judge", "judge"): 1.0}
    assert bench.floor.floor_of(rows, {**seconds, ("encode", "vae"): 9.0}) == floor


def test_savings_lower_the_fewest_rows(bench: ModuleType) -> None:
    savings = ["algorithm.informative=0.5", "algorithm.kl_share=0.25", "algorithm.timesteps_per_image=2"]
    config = load_config("toy", ["rollout.scouts=24", "rollout.scout_steps=3", *savings])  # makes 12 of the 24 again
    trainer = SimpleNamespace(config=config, algorithm=config.algorithm, step=5)
    groups, kept, edits, scouts, steps, levels = 10, 8, 12, 24, 6, 2
    assert bench.recipe.fewest_rows(trainer, groups, kept) == {
        "encode": {"encoder": groups, "vae": groups},
        "rollout": {"denoiser": groups * (edits * steps + scouts * 3)},
        "decode": {"vae": groups * (edits + scouts)},
        "judge": {"judge": groups * (edits + scouts)},
        "train": {"default": kept * 6 * levels, "old": kept * 6 * levels, "reference": kept * 3},
    }


def test_bars_that_are_missed_are_named_with_figure_and_limit(bench: ModuleType) -> None:
    gain = {**results_of()["time_to_gain_ratio"], "ratio": None, "ci95": None}
    results = results_of(floor_ratio=0.89, startup_delta_s=5.01, time_to_gain_ratio=gain)
    assert bench.report.missed(results_of(), bench.PARTS) == []
    assert bench.report.missed({}, bench.PARTS) == []
    assert bench.report.missed(results, ["floor", "gain"]) == [
        "floor / step: 0.89, at least 0.9 is asked for",
        "time to the recipe's gain / its time: –, at most 0.5 is asked for",
        "the same, upper end of the 95% interval: –, at most 1 is asked for",
    ]


def test_the_page_shows_each_bar_and_why_one_is_missed(bench: ModuleType) -> None:
    page = bench.report.page(results_of(floor_ratio=0.89), {"floor / step": "threads wait."})
    lines = page.splitlines()
    assert "| floor / step | at least 0.9 | 0.89 | **missed** | `python x.py` |" in lines
    assert 'Why "floor / step" is missed: threads wait.' in lines
    assert "| 0 | +0.0100 | 10 | 300 | +0.0200 | 4 | 120 | 0.4 |" in lines
    assert "| none dropped | judge | judge | 24 | 24 | 24 |" in lines
    assert "| 1,000,000 | 12 (11 to 13) | 1,234 |" in lines
    assert "| groups | 8 | 5.5 (5 to 6) | 62,836 |" in lines
    assert page.count("| held |") == len(bench.report.BARS) - 1


def test_a_page_of_nothing_measured_says_so(bench: ModuleType) -> None:
    page = bench.report.page({}, {})
    assert page.count("| not measured |") == len(bench.report.BARS) and "## Time to gain" not in page


def test_the_plot_is_the_same_for_the_same_results(bench: ModuleType) -> None:
    first, second = bench.report.plot(results_of()), bench.report.plot(results_of())
    assert first == second
    assert ElementTree.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_report_alone_measures_nothing_and_fails_where_a_bar_is_missed(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench.results, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(bench.report, "HERE", tmp_path)
    monkeypatch.setattr(bench.report, "write", lambda results: None)
    for slope, code in ((0.1, 0), (0.3, 1)):
        bench.results.add("memory", {"rss_slope_mb_per_step": slope, "rss_mb": [1.0]}, "python x.py")
        assert bench.main(["report"]) == code
    assert (
        capsys.readouterr().err
        == "missed: growth of memory over 200 steps, MB per step: 0.3, at most 0.2 is asked for\n"
    )
    assert bench.results.read()["made"]["memory"]["versions"].keys() >= {"python", "torch", "diffusers"}


def test_what_a_part_writes_leaves_the_others(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.results, "RESULTS", tmp_path / "results.json")
    bench.results.add("one", {"a": 1, "b": {"c": 2}}, "python one.py")
    bench.results.add("two", {"b": {"d": 3}}, "python two.py")
    found = bench.results.read()
    assert (found["a"], found["b"]) == (1, {"d": 3})
    assert [made["command"] for made in found["made"].values()] == ["python one.py", "python two.py"]


def test_references_are_seen_by_the_editor_whose_cost_is_measured(bench: ModuleType, tmp_path: Path) -> None:
    tokens = []
    for count in (0, 2):
        trainer = bench.cost.open_random(tmp_path / str(count), references=count)
        source = trainer.rollout(trainer.dataset[0], 0).rollout.conditioning.source
        tokens.append(source.shape[1])
    assert tokens[1] == 3 * tokens[0] > 0


def test_what_is_wrong_with_a_folder_is_one_line_and_code_2(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise UserError("the folder holds a run with other settings")

    with pytest.raises(SystemExit) as ended:
        bench.results.finish(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "the folder holds a run with other settings\n"


@pytest.mark.long
def test_a_quick_run_measures_every_part_and_writes_nothing(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {file: file.read_bytes() for file in BENCHMARKS.iterdir() if file.is_file()}
    assert bench.main([*PARTS, "--quick"]) == 0
    assert {file: file.read_bytes() for file in BENCHMARKS.iterdir() if file.is_file()} == files
    out = capsys.readouterr().out
    found = json.loads(out[out.index("{") :])
    assert found["calls"]["recipe"]["encode"] == {"encoder": 4, "vae": 4}
    assert found["calls"]["ours"] == found["calls"]["fewest"]
    for levels in LEVELS:
        assert found[f"identical_ratio{levels}"].keys() == {*STEPS}
        assert min(found[f"identical_ratio{levels}"].values()) > 0
    assert found["floor_ratio"] > 0 and len(found["floor_seconds"]) == 9
    assert len(found["rss_mb"]) == 3 and "rss_slope_mb_per_step" in found
    assert found["cost"]["references"]["1"]["median"] > 0
    assert found["gain_by_step"]["ours"]["0"]["1"]["before"] > 0


@pytest.mark.slow
def test_the_start_on_more_lines_is_measured_by_the_command_itself(bench: ModuleType) -> None:
    found = bench.startup.measure(quick=True)
    assert {*found["startup_seconds"]} == {10, 100}
    assert all(0 < seconds[0] < 1000 for seconds in found["startup_seconds"].values())
    assert all(200 < peak < 5000 for peak in found["startup_peak_mb"].values())
