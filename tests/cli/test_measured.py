"""Training with held-out items: measured before, between and after; stopped anywhere it goes on and ends the same."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from editr1.cli import main as cli
from editr1.cli import measured
from editr1.cli.check import find
from editr1.cli.measured import HeldOut, legs, train_measured, verdict
from editr1.config.data import EvaluationConfig
from editr1.config.loading import load_config
from editr1.data.samples import EditDataset, EditSample
from editr1.data.seeds import item_seed
from editr1.editors.lora.files import load_lora_into
from editr1.editors.lora.find import find_file
from editr1.editors.open import open_editor
from editr1.errors import UserError
from editr1.evaluation.heldout.measure import measure_edits
from editr1.evaluation.heldout.rows import read_rows
from editr1.evaluation.paired import figures, summarise
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from editr1.report.run import write_report
from editr1.training import checkpoint
from editr1.training.datasets import open_datasets
from editr1.training.preflight import find_overlap
from editr1.training.trainer import Trainer
from tests.judges.tiny_judge import build_tiny_judge
from tests.training.runs import RedJudge, assert_same_run, at_call, settings
from tests.training.scenarios import THRIFTY

EVALUATION = {"split": 3, "every": 2, "edits": 2, "steps": 2}
STEPS = 5
FOLDERS = {"before": "base", "step_000002": "step_000002", "step_000004": "step_000004", "after": "step_000005"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of one colour each."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        Image.new("RGB", (32, 32), (30 * i, 10, 90)).save(folder / f"{i}.png")
    words = {"instruction": "make it red"}
    lines = [{"source": f"{i}.png", "task": "ab"[i % 2], "key": f"k{i}", **words} for i in range(8)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


class Reading:
    """Items that tell how they are read."""

    def __init__(self, items: EditDataset | None) -> None:
        assert items is not None
        self.items, self.indices = items, list[int]()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EditSample:
        self.indices.append(index)
        return self.items[index]


class Run:
    """One run on the tiny editor."""

    def __init__(self, editor: Path, data: Path, out: Path, judge: Any = None, **changes: Any) -> None:
        self.out, self.judge = out, judge or RedJudge()
        own = {"data__path": data, "steps": STEPS, "optim__lr": 0.05, "evaluation": EVALUATION}
        self.config = settings(**{**own, **changes})
        training, heldout = open_datasets(self.config)
        self.trainer = Trainer(self.config, open_editor(editor, pixels=1024), self.judge, training, out)
        self.heldout = heldout

    def go(self) -> str:
        """Train with the evaluation; what was said."""
        assert self.heldout is not None and self.config.evaluation is not None
        console = Console(file=io.StringIO(), width=200)
        train_measured(self.trainer, HeldOut(self.heldout, self.config.evaluation), console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()


@pytest.fixture(scope="module")
def whole(tiny_editor_path: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """A run that was never stopped: its folder, what it said, and how often it asked the judge."""
    run = Run(tiny_editor_path, data, tmp_path_factory.mktemp("whole") / "out")
    return run.out, run.go(), run.judge.calls


def evaluation_of(out: Path) -> dict[str, Any]:
    """Everything that an evaluation leaves, by file name, without times."""
    files = sorted(path for path in (out / "evaluation").rglob("*") if path.is_file())
    results = json.loads((out / "results.json").read_text())
    return {str(path.relative_to(out)): path.read_bytes() for path in files} | {
        "results": {**results, "train_seconds": 0},
        "best": (out / "checkpoints/best.json").read_text(),
    }


def test_run_is_measured_before_every_n_steps_and_after_on_items_that_it_never_draws(
    whole: tuple[Path, str, int], data: Path
) -> None:
    out, said, _ = whole
    assert sorted(path.name for path in (out / "evaluation").iterdir()) == sorted(FOLDERS)
    for name, weights in FOLDERS.items():
        head = json.loads((out / "evaluation" / name / "rows.jsonl").read_text().splitlines()[0])
        assert (head["weights"], head["steps"], head["seeds"], len(head["items"])) == (weights, 2, 2, 3)
    config = settings(data__path=data, evaluation=EVALUATION)
    training, heldout = open_datasets(config)
    assert heldout is not None
    drawn, held = ({part[i].key for i in range(len(part))} for part in (training, heldout))
    assert drawn | held == {f"k{i}" for i in range(8)} and not drawn & held
    assert {row.key for row in read_rows(out / "evaluation/after")} == held
    assert "Measuring the editor as it is on 3 held-out items" in said and str(out / "report.html") in said


def test_figures_are_those_of_the_rows_and_the_curve_ends_with_them(whole: tuple[Path, str, int]) -> None:
    out, said, _ = whole
    results = json.loads((out / "results.json").read_text())
    rows = {name: read_rows(out / "evaluation" / name) for name in FOLDERS}
    expected = summarise(rows["before"], rows["after"], 0, results["train_seconds"])
    assert {name: results[name] for name in expected} == expected and "oracle" not in results
    assert [point["step"] for point in results["curve"]] == [2, 4, 5]
    assert results["curve"][-1]["judge"] == results["judge"] and results["judge"]["delta"] != 0
    means = [np.array([row.judge for row in rows[name]]).reshape(3, 2).mean(1) for name in ("before", "step_000002")]
    assert results["curve"][0]["judge"] == figures(*means)
    assert f"{results['judge']['before']:.2f} before" in said


def test_training_is_bit_for_bit_that_of_a_run_without_evaluation(
    whole: tuple[Path, str, int], tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    plain = Run(tiny_editor_path, data, tmp_path / "plain")
    plain.trainer.train()
    assert_same_run(whole[0], tmp_path / "plain")


def test_edits_before_are_the_editors_own_and_those_after_of_the_averaged_weights(
    whole: tuple[Path, str, int], tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    heldout = open_datasets(settings(data__path=data, evaluation=EVALUATION))[1]
    assert heldout is not None
    editor = open_editor(tiny_editor_path, pixels=1024)
    for name in ("before", "after"):
        if name == "after":
            load_lora_into(editor.pipe, find_file(checkpoint.trained_weights(whole[0])))
        sample = heldout[0]
        made = editor.rollout(sample, 2, steps=2, seed=item_seed(0, sample.key), scheduler="euler").images
        rows = [row for row in read_rows(whole[0] / "evaluation" / name) if row.key == sample.key]
        judged = [score.value for score in RedJudge().score([JudgeRequest(sample, image) for image in made])]
        assert [row.judge for row in rows] == pytest.approx(judged, abs=1 / 255)


@pytest.mark.parametrize("stop_at", [0, 3, 5, 8, 13])
def test_stopped_anywhere_the_same_command_ends_as_if_it_had_not_been(
    whole: tuple[Path, str, int], tiny_editor_path: Path, data: Path, tmp_path: Path, stop_at: int
) -> None:
    # The judge is asked once before (0), twice in each step, and once after the steps 2 (5), 4 (10) and 5 (13).
    with pytest.raises(KeyboardInterrupt):
        Run(tiny_editor_path, data, tmp_path / "out", RedJudge(at_call(stop_at, KeyboardInterrupt()))).go()
    again = Run(tiny_editor_path, data, tmp_path / "out")
    again.go()
    assert_same_run(whole[0], tmp_path / "out")
    assert evaluation_of(tmp_path / "out") == evaluation_of(whole[0])
    assert again.judge.calls <= whole[2] - stop_at + 1


def test_finished_run_is_shown_again_without_work_and_a_longer_one_keeps_its_curve(
    whole: tuple[Path, str, int], tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    short = Run(tiny_editor_path, data, tmp_path / "out", steps=4)
    short.go()
    again = Run(tiny_editor_path, data, tmp_path / "out", steps=4)
    again.go()
    assert again.judge.calls == 0
    Run(tiny_editor_path, data, tmp_path / "out").go()
    assert evaluation_of(tmp_path / "out") == evaluation_of(whole[0])


def test_judge_that_gives_no_held_out_edit_a_reward_stops_the_run_and_is_asked_again(
    whole: tuple[Path, str, int], tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    def dead(call: int, scores: Sequence[Score]) -> list[Score]:
        return [Score(None, "no answer") for _ in scores]

    with pytest.raises(UserError, match=r"gave none of the 6 edits .* a reward: no answer; mend the judge"):
        Run(tiny_editor_path, data, tmp_path / "out", RedJudge(dead)).go()
    Run(tiny_editor_path, data, tmp_path / "out").go()
    assert evaluation_of(tmp_path / "out") == evaluation_of(whole[0])


def test_edits_of_another_editor_are_not_taken_for_those_before_training(
    tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Run(tiny_editor_path, data, tmp_path / "out", RedJudge(at_call(1, KeyboardInterrupt()))).go()
    other = Run(tiny_editor_path, data, tmp_path / "out", editor__path="another")
    with pytest.raises(UserError, match=r"holds edits with editor.path 'tiny', now it is 'another'"):
        other.go()


def test_run_that_starts_from_a_lora_is_measured_with_it_before_even_if_that_is_made_up_for_later(
    whole: tuple[Path, str, int], tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    lora = find_file(checkpoint.trained_weights(whole[0]))
    changes = {"adapter__init": str(lora), "steps": 2}
    plain = Run(tiny_editor_path, data, tmp_path / "plain", evaluation={"split": 3}, **changes)
    plain.trainer.train()

    def silent_once(call: int, scores: list[Score]) -> list[Score]:
        return [Score(None, "no answer") if call == 0 and i == 0 else score for i, score in enumerate(scores)]

    Run(tiny_editor_path, data, tmp_path / "out", RedJudge(silent_once), **changes).go()
    again = Run(tiny_editor_path, data, tmp_path / "out", **changes)
    again.go()
    assert again.judge.calls == 1
    assert_same_run(tmp_path / "out", tmp_path / "plain")
    editor = open_editor(tiny_editor_path, pixels=1024)
    load_lora_into(editor.pipe, lora)
    assert again.heldout is not None
    for sample in map(again.heldout.__getitem__, range(3)):
        made = editor.rollout(sample, 2, steps=2, seed=item_seed(0, sample.key), scheduler="euler").images
        judged = [score.value for score in RedJudge().score([JudgeRequest(sample, image) for image in made])]
        rows = [row for row in read_rows(tmp_path / "out/evaluation/before") if row.key == sample.key]
        assert [row.judge for row in rows] == pytest.approx(judged, abs=1e-3)
    base, start = (
        np.array([row.judge for row in read_rows(out / "evaluation/before")], float)
        for out in (whole[0], tmp_path / "out")
    )
    assert np.abs(base - start).max() > 2e-3  # the LoRA shows


def test_report_shows_table_curve_and_gallery_of_the_held_out_items(whole: tuple[Path, str, int]) -> None:
    page = write_report(whole[0]).read_text(encoding="utf-8")
    assert '<table id="judge">' in page and '<table id="oracle">' not in page and "Oracle" not in page
    assert "Held-out items, judge" in page and "not evaluated" not in page
    for words in ("Largest gains", "One of each task", "Largest losses", "3</b>"):
        assert words in page


def test_report_of_a_run_that_was_stopped_shows_what_was_measured_so_far(
    tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Run(tiny_editor_path, data, tmp_path / "out", RedJudge(at_call(7, KeyboardInterrupt()))).go()
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["step"] == 2 and results["after"] == "evaluation/step_000002"
    assert "Largest gains" in write_report(tmp_path / "out").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("done", "steps", "every", "expected"),
    [(0, 10, None, [10]), (0, 10, 4, [4, 8, 10]), (4, 8, 4, [4, 8]), (5, 10, 4, [8, 10]), (10, 10, 5, [10])],
)
def test_legs_end_where_an_evaluation_is_due(done: int, steps: int, every: int | None, expected: list[int]) -> None:
    assert list(legs(done, steps, every)) == expected


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["evaluation.every=2"], "give either data"),
        (["evaluation.split=1.5"], "evaluation.split=1.5: give a share below 1, or a whole number"),
        (["evaluation.split=2", "evaluation.data=x"], "give either data"),
        (["evaluation.split=2", "evaluation.evry=2"], "did you mean evaluation.every"),
    ],
)
def test_wrong_settings_of_the_evaluation_are_one_line(overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_config("toy", overrides)


def test_all_of_evaluation_but_its_split_may_change_when_a_run_goes_on() -> None:
    old = settings(evaluation=EVALUATION)
    tree = old.model_dump(mode="json")
    assert checkpoint.changed_settings(tree, settings(evaluation={**EVALUATION, "every": 3, "items": 1})) == ""
    assert "evaluation.split: 3" in checkpoint.changed_settings(tree, settings(evaluation={**EVALUATION, "split": 2}))
    none = settings().model_dump(mode="json")
    assert checkpoint.changed_settings(none, settings(evaluation={"data": "heldout"})) == ""
    assert EvaluationConfig(split=0.1).every is None


def test_verdict_without_a_reward_claims_nothing() -> None:
    none = {"before": None, "after": None, "delta": None, "ci95": None}
    assert "did not clearly change: – before" in verdict({"judge": none, "train_seconds": 0})


@pytest.fixture
def preset(tiny_editor_path: Path, data: Path, tmp_path: Path) -> Path:
    """The settings of a run with held-out items, for the command line."""
    tree = settings(data__path=data, steps=2, evaluation={"split": 2, "steps": 2}).model_dump(mode="json")
    tree["editor"]["path"], tree["editor"]["device"] = str(tiny_editor_path), "cpu"
    tree["judge"]["path"] = str(build_tiny_judge(tmp_path / "judge"))
    tree["out"] = str(tmp_path / "run")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "run.yaml"


def train(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, ["train", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_train_does_it_all_from_the_command_line_and_goes_on_after_ctrl_c(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_edits
    rounds = []

    def stopped(*arguments: Any, **options: Any) -> Any:
        rows = whole(*arguments, **options)
        rounds.append(options["out"].name)
        if rounds[-1] == "after":
            raise KeyboardInterrupt
        return rows

    monkeypatch.setattr(measured, "measure_edits", stopped)
    code, _, said = train(str(preset))
    assert code == 130 and "the same command goes on" in said and rounds == ["before", "after"]
    monkeypatch.setattr(measured, "measure_edits", whole)
    code, printed, said = train(str(preset))
    assert code == 0, said
    run = preset.parent / "run"
    assert printed == f"{run / 'checkpoints' / 'step_000002'}\n"
    assert "2 held-out instructions" in said and "was measured on too few items to tell" in said.replace("\n", " ")
    page = (run / "report.html").read_text()
    assert "Before and after, by task" in page
    assert json.loads((run / "results.json").read_text())["guidance"] == 1.0  # of training, which made these edits
    assert "held-out instructions, guidance 1, scores" in " ".join(said.split())
    assert "Edits were made at guidance 1.00, the scale of the run's training." in page


def test_split_that_leaves_nothing_is_one_line_before_a_weight_is_loaded(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "open_trainer", lambda *_: pytest.fail("weights are loaded"))
    code, _, said = train(str(preset), "evaluation.split=8")
    assert code == 2 and "evaluation.split=8 holds out 8 of 8 items" in said
    assert len([line for line in said.splitlines() if line.startswith("editr1: ")]) == 1


def test_a_run_that_goes_on_with_other_held_out_edits_is_refused_before_a_weight_is_loaded(
    preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(str(preset))[0] == 0
    assert train(str(preset), "steps=3", "evaluation.every=1")[0] == 0
    changes = {"evaluation.steps=3": "with steps 2, now it is 3", "evaluation.items=1": "other items"}
    with monkeypatch.context() as patch:
        patch.setattr(measured, "open_trainer", lambda *_: pytest.fail("weights are loaded"))
        for change, words in changes.items():
            code, _, said = train(str(preset), change)
            assert code == 2 and words in said and "move this one away" in said
    (preset.parent / "run/evaluation").rename(preset.parent / "moved")
    assert train(str(preset), "evaluation.steps=3", "steps=3")[0] == 0


def test_held_out_folder_that_shares_pictures_with_the_training_data_is_a_warning(preset: Path, data: Path) -> None:
    findings = find(load_config(preset, [f"evaluation={{data: {data}}}"]))
    find_overlap(findings)
    assert any("8 of its source pictures are in the training data" in warning for warning in findings.warnings)


def test_a_run_with_all_that_saves_work_is_measured_on_items_that_it_never_draws_and_goes_on_exactly(
    tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    changes = {
        **THRIFTY, "rollout__scouts": 5, "rollout__scout_steps": 2, "rollout__group_size": 4, "rollout__most_groups": 4,
        "algorithm__filter": "released", "algorithm__tau_sigma": 0.02, "data__ban_solved": True, "steps": 3,
    }  # fmt: skip
    whole = Run(tiny_editor_path, data, tmp_path / "whole", **changes)
    whole.go()
    stopped = Run(
        tiny_editor_path,
        data,
        tmp_path / "out",
        RedJudge(at_call(whole.judge.calls - 4, KeyboardInterrupt())),
        **changes,
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.go()
    again = Run(tiny_editor_path, data, tmp_path / "out", **changes)
    assert again.trainer.step > 0
    again.go()
    assert_same_run(tmp_path / "whole", tmp_path / "out")
    assert evaluation_of(tmp_path / "whole") == evaluation_of(tmp_path / "out")
    rows = read_lines(tmp_path / "whole" / "metrics.jsonl")
    assert all(row["scout_reward"] is not None for row in rows) and any(row["dropped"] for row in rows)


class Content(RedJudge):
    """Finds every edit good: all items are solved when they have been drawn once."""

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        self.calls += 1
        return [Score(0.95) for _ in requests]


def test_a_run_whose_items_are_all_solved_is_measured_where_it_ends_and_again_by_the_same_rows(
    tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    changes = {"data__ban_solved": True, "evaluation": {**EVALUATION, "every": 4}, "steps": 9}
    said, calls, results = list[str](), list[int](), list[dict[str, Any]]()
    for _ in range(2):
        run = Run(tiny_editor_path, data, tmp_path / "out", Content(), **changes)
        said.append(run.go())
        calls.append(run.judge.calls)
        results.append(evaluation_of(tmp_path / "out"))
    assert "Measuring again after step 3:" in said[0] and calls[1] == 0  # five items, two in a step
    assert results[0] == results[1] and results[0]["results"]["step"] == 3
    assert sorted(path.name for path in (tmp_path / "out" / "evaluation").iterdir()) == ["after", "before"]


def test_a_run_that_goes_on_with_preservation_measures_the_edits_of_all_its_evaluations(
    tiny_editor_path: Path, data: Path, tmp_path: Path
) -> None:
    masked = tmp_path / "data"
    masked.mkdir()
    lines = read_lines(data / "data.jsonl")
    for line in lines:
        Image.effect_noise((32, 32), 60).convert("RGB").save(masked / line["source"])
        line["mask"] = {"unit": "share", "boxes": [[0, 0, 0.5, 1]]}
    (masked / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    watched = {"preservation": {"masks": "data"}}
    for name, first in (("late", {}), ("always", watched)):
        Run(tiny_editor_path, masked, tmp_path / name, steps=3, **first).go()
        said = Run(tiny_editor_path, masked, tmp_path / name, **watched).go()
        assert said.count("keep outside of their masks") == (2 if name == "late" else 0), "after steps 2 and 3"
        assert "PSNR outside of the masks" in said
    late, always = evaluation_of(tmp_path / "late"), evaluation_of(tmp_path / "always")
    assert late == always
    again = Run(tiny_editor_path, masked, tmp_path / "always", **watched)
    again.heldout = read = Reading(again.heldout)
    again.go()
    assert read.indices == [0, 1, 2], "masks are looked at once, for the evaluations before, between and after"
    assert [point["step"] for point in late["results"]["curve"] if point["psnr"]["ci95"]] == [2, 3, 4, 5]
    write_report(tmp_path / "late")
    bare = Run(tiny_editor_path, masked, tmp_path / "late")
    assert "PSNR" not in bare.go(), "what is not asked for now is not told"
