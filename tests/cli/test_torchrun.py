"""`torchrun -m editr1 train` as a user types it: the run of one process, faults in one line, a lost rank named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.files import read_lines
from tests.ranks import torchrun
from tests.training.test_ranks import FIRST, SAME, weights

SIZES = ("rollout.groups_per_step=3", "rollout.group_size=5", "rollout.steps=2", "data.size=16", "optim.lr=3e-4")
FULL = ("adapter.mode=full", "optim.lr=1e-5")
FAULT = re.compile(r"^editr1: .*$", re.MULTILINE)


def train(ranks: int, preset: str, out: Path, *overrides: str) -> list[dict[str, Any]]:
    result = torchrun(ranks, "editr1", "train", preset, *SIZES, f"out={out}", *overrides)
    assert result.returncode == 0, result.stderr[-3000:]
    return read_lines(out / "metrics.jsonl")


def test_two_ranks_train_the_toy_as_one_process_does(tmp_path: Path) -> None:
    one, two = (train(ranks, "toy", tmp_path / str(ranks), "steps=2") for ranks in (1, 2))
    for key in FIRST:
        assert two[0].get(key) == one[0].get(key), key
    expected = weights(tmp_path / "1")
    assert (weights(tmp_path / "2") - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.long
def test_full_finetuning_whose_weights_are_spread_over_ranks_goes_on_with_another_number_of_them(
    tmp_path: Path,
) -> None:
    """On one process, on two with half of the weights each, and on four, of which two hold a copy together."""
    train(1, "toy", tmp_path / "straight", "steps=3", *FULL)
    out = tmp_path / "out"
    for step, (ranks, shard) in enumerate([(2, 2), (1, 1), (4, 2)], start=1):
        train(ranks, "toy", out, f"steps={step}", f"parallel.shard={shard}", *FULL)
    for row, other in zip(*(read_lines(path / "metrics.jsonl") for path in (out, tmp_path / "straight")), strict=True):
        assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
        for norm in ("grad_norm", "update_norm", "weight_norm"):
            assert row[norm] == pytest.approx(other[norm], rel=1e-4)
    for name in ("policy", "old", "ema"):
        expected = weights(tmp_path / "straight", name)
        assert (weights(out, name) - expected).norm() <= 1e-5 * expected.norm()
    checks = [json.loads((path / "self_check.json").read_text()) for path in (out, tmp_path / "straight")]
    for key in ("replay_error", "trained", "layers", "modules", "silent", "dead_ends"):  # of shards on four ranks, too
        assert checks[0][key] == checks[1][key], key
    assert checks[0]["silent"] == [] and checks[0]["trained"] == checks[0]["layers"] > 0
    exported = CliRunner().invoke(app, ["export", str(out), "--merge", "--to", str(tmp_path / "export")])
    assert exported.exit_code == 0, exported.output


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["toy", "toy_flux_kontext"])
@pytest.mark.parametrize("mode", ["lora", "full", "lora, sharded", "full, sharded"])
def test_one_two_and_four_ranks_make_the_same_run(preset: str, mode: str, tmp_path: Path) -> None:
    # Adam turns rounding of tiny gradients (those of a LoRA's A while B is near 0) into steps of the whole rate
    own = FULL if mode.startswith("full") else ["optim.lr=1e-4"]
    runs = {}
    for ranks in (1, 2, 4):
        shard = [f"parallel.shard={ranks}"] if mode.endswith("sharded") else []
        runs[ranks] = train(ranks, preset, tmp_path / str(ranks), "steps=5", *own, *shard)
    for ranks in (2, 4):
        for key in FIRST:
            assert runs[ranks][0].get(key) == runs[1][0].get(key), (ranks, key)
        for row, other in zip(runs[1], runs[ranks], strict=True):
            assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
        expected = weights(tmp_path / "1")
        assert (weights(tmp_path / str(ranks)) - expected).norm() <= 1e-5 * expected.norm()


ASKED = """
import os
from PIL import ImageStat
def score(source, edit, *_):
    with open(f"asked-{os.environ.get('RANK', 'alone')}", "a") as file: file.write("x")
    return round(ImageStat.Stat(edit).mean[0] / 255, 3)
"""  # rounded: a pixel that rounds the other way in another order of sums shall not change a reward


@pytest.mark.long
def test_two_ranks_that_share_tokens_train_and_measure_as_one_process_does(tmp_path: Path) -> None:
    """And one of them asks for rewards."""
    (tmp_path / "asked.py").write_text(ASKED)
    own = ("judge=null", "rewards={own: {kind: function, path: 'asked:score'}}")
    measured = ("evaluation={split: 2, steps: 2, edits: 1}", "steps=2")
    rows, results = [], []
    for ranks in (1, 2):
        command = ("editr1", "train", "toy", *SIZES, *own, *measured, f"parallel.context={ranks}", f"out=of-{ranks}")
        done = torchrun(ranks, *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        rows.append(read_lines(tmp_path / f"of-{ranks}" / "metrics.jsonl"))
        results.append(json.loads((tmp_path / f"of-{ranks}" / "results.json").read_text())["judge"])
        asked = (tmp_path / "asked-0").read_text()
        assert len(asked) > 2 * 3 * 5 and not (tmp_path / "asked-1").exists()
        (tmp_path / "asked-0").unlink()
    for one, two in zip(*rows, strict=True):
        assert two["reward_mean"] == pytest.approx(one["reward_mean"], abs=1e-6)
        assert {key: one.get(key) for key in SAME} == {key: two.get(key) for key in SAME}
    for key in ("before", "after"):
        assert results[1][key] == pytest.approx(results[0][key], abs=1e-5)
    expected = weights(tmp_path / "of-1")
    assert (weights(tmp_path / "of-2") - expected).norm() <= 1e-5 * expected.norm()


def test_a_denoiser_that_cannot_share_its_tokens_is_told_before_weights_are_loaded(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, "toy", *SIZES, "parallel.context=4")
    assert len(faults) == 1 and "parallel.context=4 does not divide the 6 attention heads" in faults[0]


def faults_of(tmp_path: Path, *arguments: str) -> list[str]:
    """The lines of faults of a run on two ranks that must fail."""
    result = torchrun(2, "editr1", "train", *arguments, f"out={tmp_path / 'out'}", cwd=tmp_path)
    assert result.returncode != 0
    assert "exitcode  : 2" in result.stderr, result.stderr[-3000:]  # that of the first rank that failed
    own, _, _ = result.stderr.partition("ChildFailedError")
    assert "Traceback" not in own.partition("torch/distributed/run.py")[0].replace("Traceback (most recent", "", 1)
    return FAULT.findall(result.stderr)


def test_a_wrong_setting_is_told_once(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, "toy", "optim.learning_rate=1")
    assert len(faults) == 1 and "optim.lr" in faults[0]


BEGINNING = """
import os, sys, time
from editr1.cli.main import main
rank = os.environ["LOCAL_RANK"]
if rank == "{late}":
    time.sleep(4)
if rank != "{right}":
    sys.argv.append("optim.learning_rate=1")
main()
"""


@pytest.mark.parametrize(("late", "right", "teller"), [("0", "", "0"), ("1", "", "0"), ("", "0", "1")])
def test_a_fault_before_the_ranks_meet_is_told_however_late_a_rank_begins(
    late: str, right: str, teller: str, tmp_path: Path
) -> None:
    (tmp_path / "beginning.py").write_text(BEGINNING.format(late=late, right=right))
    result = torchrun(2, "beginning", "train", "toy", *SIZES, f"out={tmp_path / 'out'}", cwd=tmp_path)
    (fault,) = FAULT.findall(result.stderr)
    assert fault.startswith(f"editr1: rank {teller}: ") and "optim.lr" in fault


def test_a_fault_that_the_checks_find_is_told_by_the_main_rank_alone(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    (tmp_path / "data.jsonl").write_text(json.dumps({"source": "blue.png", "instruction": "add a cat"}))
    faults = faults_of(tmp_path, "toy", "data.kind=jsonl", f"data.path={tmp_path}")
    assert len(faults) == 1 and faults[0].startswith("editr1: rank 0: ") and "blue.png" in faults[0]


LATE = """
import os
from PIL import Image
def score(source, edit, *_):
    if os.environ.get("RANK") == "1" and edit != source: return {fault}
    return edit.getpixel((0, 0))[0] / 255
"""  # the check before the run shows a picture as its own edit


@pytest.mark.parametrize("mode", [(), (*FULL, "parallel.shard=2")])
def test_a_fault_of_one_rank_in_a_step_ends_the_others_and_is_told_with_its_rank(
    tmp_path: Path, mode: tuple[str, ...]
) -> None:
    (tmp_path / "late.py").write_text(LATE.format(fault="7"))
    own = "rewards={own: {kind: function, path: 'late:score'}}"
    faults = faults_of(tmp_path, "toy", *SIZES, "judge=null", own, "steps=2", *mode)
    assert len(faults) == 1 and re.match("editr1: rank 1: .*late:score.*7", faults[0])


def test_a_traceback_is_shown_by_one_rank(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        LATE.format(fault="{}['colour']").replace('os.environ.get("RANK") == "1" and ', "")
    )
    own = "rewards={own: {kind: function, path: 'late:score'}}"
    arguments = ("toy", *SIZES, "judge=null", own, f"out={tmp_path / 'out'}")
    result = torchrun(2, "editr1", "train", *arguments, cwd=tmp_path)
    own_lines, _, _ = result.stderr.partition("torch/distributed/run.py")  # torchrun's own traceback and report follow
    assert result.returncode != 0 and own_lines.count("KeyError: 'colour'") == 1


def test_a_rank_that_hangs_is_named(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LATE.format(fault="__import__('time').sleep(200)"))
    own = "rewards={own: {kind: function, path: 'late:score'}}"
    faults = faults_of(
        tmp_path, "toy", *SIZES, "judge=null", own, "steps=2", "parallel.timeout=40"
    )  # a busy machine takes 20 s to start
    assert any("rank 1 ended or hangs" in fault for fault in faults), faults


@pytest.mark.slow
def test_ranks_that_share_the_weights_make_scouts_and_draw_other_items_as_one_process_does(tmp_path: Path) -> None:
    own = ("rollout.scouts=7", "rollout.steps=3", "rollout.scout_steps=2", "rollout.most_groups=6", "steps=2")
    mode = ("algorithm.filter=released", "algorithm.tau_mu=0.5")
    one, two = (train(ranks, "toy", tmp_path / str(ranks), *own, *mode, f"parallel.shard={ranks}") for ranks in (1, 2))
    for key in FIRST:
        assert two[0].get(key) == one[0].get(key), key
    assert one[0]["dropped"]
    for row, other in zip(two, one, strict=True):
        assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
