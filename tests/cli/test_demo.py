"""The demo's course with a tiny random editor and a stand-in for the judge: measure, train, measure; stop, go on."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from editr1.cli.demo import EVAL_STEPS, oracle_of, run_demo, show
from editr1.cli.measured import HeldOut, table, train_measured, verdict
from editr1.config.data import EvaluationConfig
from editr1.config.loading import load_config
from editr1.editors.lora.find import find_file
from editr1.editors.open import open_config_editor
from editr1.errors import UserError
from editr1.evaluation.benchmarks import own_data
from editr1.evaluation.benchmarks.compare import compare
from editr1.evaluation.benchmarks.edits import EditSettings
from editr1.evaluation.benchmarks.results import write_result
from editr1.evaluation.benchmarks.toy_world import ToySettings, evaluate_toy
from editr1.evaluation.heldout.measure import toy_oracle
from editr1.evaluation.heldout.rows import read_rows
from editr1.evaluation.paired import summarise
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from editr1.terminal import show_table
from editr1.toy.world import ToyDataset
from editr1.training.checkpoint import trained_weights
from editr1.training.datasets import open_dataset
from editr1.training.trainer import Trainer

STEPS = 2
HELD_OUT = 9


class Brightness:
    """A "judge" that likes bright edits; `stop_at` interrupts it at that call."""

    remote = False

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at = 0, stop_at

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return [Score(float(np.asarray(request.edit).mean()) / 255) for request in requests]


def trainer(editor: Path, out: Path, judge: Brightness) -> Trainer:
    sizes = ["rollout.group_size=2", "rollout.groups_per_step=2", "rollout.steps=3", "algorithm.filter=off"]
    overrides = [f"editor.path={editor}", f"out={out}", f"steps={STEPS}", "adapter.rank=2", "optim.lr=0.01", *sizes]
    config = load_config("toy", overrides)
    return Trainer(config, open_config_editor(config), judge, open_dataset(config.data), watch=oracle_of)


def run(editor: Path, out: Path, judge: Brightness, minutes: float | None = None) -> tuple[dict[str, Any], str]:
    """The demo's results and what it said."""
    console = Console(file=io.StringIO(), width=200)
    results = show(trainer(editor, out, judge), ToyDataset("heldout", HELD_OUT), minutes, console)
    assert isinstance(console.file, io.StringIO)
    return results, console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tiny_editor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, *run(tiny_editor_path, out, Brightness())


def test_results_are_those_of_the_rows_on_disk_and_the_edits_differ(finished: tuple[Path, dict[str, Any], str]) -> None:
    out, results, _ = finished
    before, after = read_rows(out / "evaluation/before"), read_rows(out / "evaluation/after")
    assert len(before) == 2 * HELD_OUT
    assert (
        results
        == json.loads((out / "results.json").read_text())
        == {**results, **summarise(before, after, 0, results["train_seconds"])}
    )
    assert results["judge"]["before"] == pytest.approx(np.mean([row.judge for row in before]))
    assert results["judge"]["delta"] != 0
    assert results["train_seconds"] > 0


def test_eval_toy_of_the_editor_and_of_the_run_reproduces_the_demos_table(
    finished: tuple[Path, dict[str, Any], str],
    tiny_editor_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, results, _ = finished
    monkeypatch.setattr(own_data, "open_judge", lambda *_: Brightness())
    loras = {"before": None, "after": str(find_file(trained_weights(out)))}
    for name, lora in loras.items():
        settings = EditSettings(editor=str(tiny_editor_path), lora=lora, steps=EVAL_STEPS, pixels=64 * 64, guidance=1.0)
        toy = ToySettings(items=HELD_OUT)
        write_result(evaluate_toy(settings, toy, "toy", tmp_path / name, lambda count: None), tmp_path / name)
    changes = compare([tmp_path / name for name in loras]).changes["after"]["all"]
    for metric in ("oracle", "judge"):
        lines = {**results["by_task"], "overall": results}
        for line, figures in lines.items():
            change = changes[metric][line]
            assert (change.before, change.after) == (figures[metric]["before"], figures[metric]["after"])
            assert (change.delta, list(change.ci95)) == (figures[metric]["delta"], figures[metric]["ci95"])


def test_oracle_is_measured_at_every_training_step(finished: tuple[Path, dict[str, Any], str]) -> None:
    rows = read_lines(finished[0] / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 <= row["watched"]["oracle"] <= 1 for row in rows)


def test_what_is_said_names_every_stage_the_table_and_the_files(finished: tuple[Path, dict[str, Any], str]) -> None:
    out, results, said = finished
    for words in ("2/5", "3/5", "4/5", "5/5", str(out / "report.html"), str(out / "results.json")):
        assert words in said
    assert f"{results['oracle']['before']:.2f} before" in said
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("stop_at", [1, 3, 6], ids=["measuring before", "training", "measuring after"])
def test_stopped_anywhere_the_same_command_ends_as_if_it_had_not_been(
    finished: tuple[Path, dict[str, Any], str], tiny_editor_path: Path, tmp_path: Path, stop_at: int
) -> None:
    # The judge is asked 2 times before training (8 + 1 items), 4 times in training (2 steps x 2 groups), 2 times after.
    with pytest.raises(KeyboardInterrupt):
        run(tiny_editor_path, tmp_path / "run", Brightness(stop_at))
    judge = Brightness()
    results, _ = run(tiny_editor_path, tmp_path / "run", judge)
    assert {**results, "train_seconds": 0} == {**finished[1], "train_seconds": 0}
    assert judge.calls <= 8 - stop_at + 1


def test_toy_run_with_an_evaluation_has_a_curve_of_the_oracle_beside_the_judges(
    tiny_editor_path: Path, tmp_path: Path
) -> None:
    heldout = HeldOut(ToyDataset("heldout", HELD_OUT), EvaluationConfig(split=9, every=1, steps=3), toy_oracle)
    train_measured(trainer(tiny_editor_path, tmp_path / "run", Brightness()), heldout, Console(file=io.StringIO()))
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert [point["step"] for point in results["curve"]] == [1, 2]
    assert [results["curve"][-1][name] for name in ("oracle", "judge")] == [results["oracle"], results["judge"]]
    rows = read_rows(tmp_path / "run/evaluation/step_000001")
    assert results["curve"][0]["oracle"]["after"] == pytest.approx(np.mean([row.oracle["score"] for row in rows]))
    page = (tmp_path / "run/report.html").read_text()
    assert "Held-out items, oracle" in page and "Held-out items, judge" in page


def test_finished_demo_shows_its_results_again_without_any_work(
    finished: tuple[Path, dict[str, Any], str], tiny_editor_path: Path
) -> None:
    judge = Brightness()
    results, _ = run(tiny_editor_path, finished[0], judge)
    assert (results, judge.calls) == (finished[1], 0)


def test_no_time_for_training_leaves_the_editor_as_it_was(tiny_editor_path: Path, tmp_path: Path) -> None:
    results, _ = run(tiny_editor_path, tmp_path / "run", Brightness(), minutes=0)
    assert results["oracle"]["delta"] == 0 and results["train_seconds"] == 0


@pytest.mark.parametrize("name", ["qwen-image-edti", "judge"])
def test_unknown_editor_is_refused_with_the_known_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"--editor {name}: .* there are qwen-image-edit, flux-kontext"):
        run_demo(tmp_path / "out", editor=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("interval", "word"), [([0.1, 0.2], "rose"), ([-0.2, -0.1], "fell"), ([-0.1, 0.2], "did not clearly change")]
)
def test_verdict_claims_no_more_than_the_interval_allows(interval: list[float], word: str) -> None:
    figures = {"before": 0.41, "after": 0.56, "delta": 0.15, "ci95": interval}
    assert verdict({"oracle": figures, "train_seconds": 311.6}) == (
        f"The oracle, which training never saw, {word}: 0.41 before, 0.56 after (312 s of training)."
    )


def test_table_has_a_line_a_task_with_both_scores_and_one_for_all_in_80_columns() -> None:
    figures = {"before": 0.4, "after": 0.5, "delta": 0.1, "ci95": [0.05, 0.15]}
    none = {"before": None, "after": None, "delta": None, "ci95": None}
    entry = {"oracle": figures, "judge": none, "n": 5}
    few = {"oracle": figures, "judge": figures, "n": 4}
    made = table({"items": 9, "oracle": figures, "judge": figures, "by_task": {"add": entry, "background": few}})
    console = Console(file=io.StringIO(), width=80)
    show_table(console, made)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    change, unclear = "0.40 0.50 +0.10 [+0.05, +0.15]", "0.40 0.50 +0.10 [few items]"
    assert [" ".join(line.split()) for line in lines if line.strip().startswith(("add", "background", "all"))] == [
        f"add {change} – – –",
        f"background {unclear} {unclear}",
        f"all {change} {change}",
    ]
