"""The runs of a grid: the same however often they are stopped, one process each, what they start from measured once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from editr1.ablation import timing
from editr1.ablation.grid import Grid
from editr1.ablation.page import write_ablation
from editr1.ablation.runs import GAINS, UNTRAINED, run_of, train_all, train_one
from editr1.errors import UserError
from editr1.evaluation.heldout.rows import read_rows
from editr1.files import locked, read_lines
from editr1.training.run_files import AFTER, LOCK

TINY = (
    *("rollout.groups_per_step=1", "rollout.group_size=2", "rollout.steps=2"),
    *("algorithm.timesteps_per_image=1", "algorithm.filter=off"),
)
GRID = Grid(
    title="Tiny",
    base="toy",
    overrides=TINY,
    variants={"usual": (), "scouts": ("rollout.scouts=3", "rollout.steps=3", "rollout.scout_steps=2")},
    steps=3,
    measured=(1,),
    items=2,
    eval_steps=2,
    seeds=1,
    seconds=(1.0,),
)


@pytest.fixture(autouse=True)
def _threads() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation")
    said = list(train_all(GRID, out, ["usual", "scouts"]))
    assert [line.partition(": ")[0] for line in said] == [
        f"{variant}, seed 0, step {step}" for variant in GRID.variants for step in (1, 3)
    ]
    return out


def test_each_run_is_measured_at_its_steps_and_what_both_start_from_once(whole: Path) -> None:
    assert len([*(whole / UNTRAINED).iterdir()]) == 1
    for variant, images in (("usual", (2, 6)), ("scouts", (5, 15))):
        _, lines = run_of(GRID, variant, 0, whole)
        assert [(row.step, row.images) for row in lines.rows] == [*zip((1, 3), images, strict=True)]
        last = read_rows(whole / variant / "0" / AFTER)
        assert lines.rows[-1].oracle == [row.oracle["score"] for row in last]
        assert lines.rows[-1].done == [row.oracle["done"] for row in last]
        assert lines.rows[-1].preserved == [row.oracle["preserved"] for row in last]
        assert lines.rows[-1].judge == [row.judge for row in last]


def test_what_is_done_is_not_done_again(whole: Path) -> None:
    assert list(train_all(GRID, whole, ["usual", "scouts"])) == []


def test_a_run_that_was_stopped_has_the_measurements_of_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    runs = train_one(GRID, "usual", 0, tmp_path)
    next(runs)
    del runs  # stopped between two measurements
    assert len(read_lines(tmp_path / "usual/0" / GAINS)) == 2  # the settings and one measurement
    assert [row.step for row in train_one(GRID, "usual", 0, tmp_path)] == [3]
    assert (tmp_path / "usual/0" / GAINS).read_bytes() == (whole / "usual/0" / GAINS).read_bytes()


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    with locked(tmp_path / "usual/0" / LOCK):
        code = (
            "import sys; from pathlib import Path; from tests.ablation.test_runs import GRID, train_all;"
            "print(list(train_all(GRID, Path(sys.argv[1]), ['usual'])))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300, check=True
        )
    assert done.stdout == "[]\n"


def test_measurements_of_other_settings_are_refused(whole: Path) -> None:
    with pytest.raises(UserError, match="measurements with items 2, now it is 3"):
        run_of(GRID.model_copy(update={"items": 3}), "usual", 0, whole)
    with pytest.raises(UserError, match="measurements with settings"):
        run_of(GRID.model_copy(update={"variants": {"usual": ("optim.lr=1",)}}), "usual", 0, whole)


def test_longer_runs_go_on_from_the_shorter_ones(whole: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    short = GRID.model_copy(update={"steps": 1, "measured": ()})
    assert [row.step for row in train_one(short, "usual", 0, tmp_path)] == [1]
    assert [row.step for row in train_one(GRID, "usual", 0, tmp_path)] == [3]
    assert (tmp_path / "usual/0" / GAINS).read_bytes() == (whole / "usual/0" / GAINS).read_bytes()


def test_the_report_holds_the_tables_and_the_page(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = {"usual": 1.0, "scouts": 2.0}
    monkeypatch.setattr(timing, "_stepper", lambda grid, variant, out: lambda: ticks[variant])
    said = list(timing.time_all(GRID, whole, ["usual", "scouts"], rounds=2))
    assert said[1] == "scouts: 2.000 s a step, 2.000 [2.000, 2.000] of usual"
    page = write_ablation(GRID, whole).read_text()
    assert "<h1>Tiny</h1>" in page and "Equal time: the oracle&#39;s score" in page and "<svg" in page
    content = json.loads((whole / "ablation.json").read_text())
    assert content["variants"]["scouts"]["timed"]["ratio"] == 2
    assert set(content["variants"]["scouts"]["steps"]) == {"1", "3"}
    assert "| scouts | 1 |" in (whole / "ablation.md").read_text()


def test_a_start_whose_measurement_is_lost_is_told_in_one_line_and_measured_again(whole: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "untrained")
    with pytest.raises(UserError, match=r"gains\.jsonl is missing: what .*usual/0 starts from"):
        write_ablation(GRID, tmp_path)
    assert list(train_one(GRID, "usual", 0, tmp_path)) == []
    [again] = (tmp_path / "untrained").glob(f"*/{GAINS}")
    assert again.read_bytes() == (whole / again.relative_to(tmp_path)).read_bytes()


def test_a_judge_that_ranks_leaves_its_column_out_where_an_item_has_one_edit_and_the_page_says_why(
    tmp_path: Path,
) -> None:
    ranking = "judge={path: 'toy:judge', method: ranking, batch_size: 48}"
    grid = GRID.model_copy(update={"variants": {"ranking": (ranking,)}, "steps": 1, "measured": (), "seconds": ()})
    list(train_all(grid, tmp_path, ["ranking"]))
    page = write_ablation(grid, tmp_path).read_text()
    assert (
        "No gain by the judge of ranking" in page and "No gain by the judge" in (tmp_path / "ablation.md").read_text()
    )
    assert "the judge&#39;s score" not in page and "the oracle&#39;s score" in page and ">nan" not in page
    assert "nan" not in "".join(re.findall(r' d="([^"]*)"', page))


def test_steps_of_a_variant_and_of_the_first_one_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def stepper(grid: Grid, variant: str, out: Path) -> object:
        return lambda: order.append(out.name) or 1.0

    monkeypatch.setattr(timing, "_stepper", stepper)
    timed = timing.time_variant(GRID, "scouts", rounds=2)
    assert order == ["own", "first"] * 4 and timed["ratio"] == 1


def test_the_alarms_of_a_run_are_kept_with_the_step_at_which_each_first_sounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat_reward.py").write_text(
        "def same(source, edit, instruction, requirement, task):\n    return 0.5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    flat = ("judge=null", "rewards.same={kind: function, path: 'flat_reward:same'}")
    grid = GRID.model_copy(update={"variants": {"flat": flat}, "steps": 4, "measured": (2,), "seconds": ()})
    list(train_all(grid, tmp_path, ["flat"]))
    _, lines = run_of(grid, "flat", 0, tmp_path)
    assert [row.alarms for row in lines.rows] == [{}, {"constant reward": 3}]  # it needs three such steps
    page = write_ablation(grid, tmp_path).read_text()
    assert "<li>flat, seed 0: constant reward at step 3</li>" in page
    assert "- flat, seed 0: constant reward at step 3\n" in (tmp_path / "ablation.md").read_text()
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["variants"]["flat"]["alarms"] == {"0": {"constant reward": 3}}
