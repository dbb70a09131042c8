"""`editr1 eval data`: a user's own items, and any editor and judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1.cli import main as cli
from editr1.data.samples import JsonlDataset
from editr1.data.seeds import item_seed
from editr1.editors.open import open_named_editor
from editr1.evaluation.benchmarks import own_data
from editr1.evaluation.benchmarks.compare import compare
from editr1.evaluation.benchmarks.results import read_result
from editr1.evaluation.heldout.rows import read_rows
from editr1.judges.base import JudgeRequest, Score
from tests.training.runs import RedJudge


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (32, 32), (80 * i, 10, 90)).save(folder / f"{i}.png")
    lines = [{"source": f"{i}.png", "instruction": "make it red", "task": "ab"[i % 2]} for i in range(3)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def run(data: Path, editor: Path, out: Path, *more: str) -> tuple[int, str]:
    options = ["--editor", editor, "--judge", "toy", "--out", out, "--steps", "2", "--pixels", "1024", *more]
    result = CliRunner().invoke(cli.app, ["eval", "data", *map(str, [data, *options])])
    return result.exit_code, result.output


def test_rewards_are_the_judges_of_the_editors_own_edits_and_a_second_run_makes_none(
    data: Path, tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = RedJudge()
    monkeypatch.setattr(own_data, "open_judge", lambda *_: judge)
    code, said = run(data, tiny_editor_path, tmp_path / "out")
    assert code == 0, said
    result, sample = read_result(tmp_path / "out"), JsonlDataset(data)[1]
    editor = open_named_editor(str(tiny_editor_path), pixels=1024)
    images = editor.rollout(sample, 2, steps=2, seed=item_seed(0, sample.key), scheduler="euler").images
    rewards = [score.value for score in RedJudge().score([JudgeRequest(sample, image) for image in images])]
    rows = [row for row in read_rows(tmp_path / "out/edits") if row.key == sample.key]
    assert [row.judge for row in rows] == rewards
    assert result.metrics == ("judge",) and {row.key for row in result.items} == {"line-1", "line-2", "line-3"}
    assert [line.name for line in result.tables["all"]] == ["a", "b", "overall"] and "Own data" in said
    assert (tmp_path / "out/index.html").read_text().count("make it red") >= 3
    calls = judge.calls
    assert run(data, tiny_editor_path, tmp_path / "out")[0] == 0 and judge.calls == calls
    assert run(data, tiny_editor_path, tmp_path / "two", "--limit", "2", "--best-of", "2")[0] == 0
    changes = compare([tmp_path / "out", tmp_path / "two"]).changes["two"]["all"]["judge"]
    assert changes["overall"].items == 2 and changes["overall"].delta > 0  # the best of two is above their mean


def test_edit_without_a_reward_is_named_and_judged_by_the_same_command(
    data: Path, tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(RedJudge):
        def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
            return [Score(None, "no answer") if r.sample.key == "line-2" else Score(0.5) for r in requests]

    monkeypatch.setattr(own_data, "open_judge", lambda *_: Silent())
    code, said = run(data, tiny_editor_path, tmp_path / "out")
    assert code == 0 and "1 of 3 items lack an answer: no answer. The same command asks again." in said
    monkeypatch.setattr(own_data, "open_judge", lambda *_: RedJudge())
    assert run(data, tiny_editor_path, tmp_path / "out")[0] == 0
    assert all(row.scores["judge"] is not None for row in read_result(tmp_path / "out").items)


def test_pictures_elsewhere_need_a_root_that_holds_them(data: Path, tiny_editor_path: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (data / "2.png").rename(tmp_path / "photos/2.png")
    file = data / "data.jsonl"
    file.write_text(file.read_text().replace('"2.png"', json.dumps(str(tmp_path / "photos/2.png"))))
    code, said = run(data, tiny_editor_path, tmp_path / "out")
    assert code == 2 and "data.jsonl:3" in said and "--root of eval data" in said
    assert run(data, tiny_editor_path, tmp_path / "out", "--root", str(tmp_path / "photos"))[0] == 0
    assert len(read_result(tmp_path / "out").items) == 3


def test_what_cannot_be_measured_is_told_at_once_before_a_weight(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_data, "open_editor", lambda *_: pytest.fail("the editor is loaded"))
    (data / "1.png").write_text("no picture")
    (tmp_path / "out").write_text("")
    dead = ("--judge", "openai:http://127.0.0.1:9/v1?model=m")
    code, said = run(data, tmp_path / "nowhere", tmp_path / "out", *dead)
    expected = [
        f"editr1: --out={tmp_path}/out: {tmp_path}/out is a file; choose a folder",
        f"editr1: editor.path='{tmp_path}/nowhere': no diffusers pipeline there",
        "editr1: judge: no answer from 127.0.0.1:9 after 2 tries",
        f"editr1: cannot read the picture {data}/1.png of item 'line-2'",
    ]
    lines = said.splitlines()
    assert code == 2 and [line[: len(words)] for line, words in zip(lines, expected, strict=True)] == expected


def test_rewards_of_a_judge_with_other_settings_are_neither_reused_nor_comparable(
    data: Path, tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_data, "open_judge", lambda *_: RedJudge())
    assert run(data, tiny_editor_path, tmp_path / "out")[0] == 0
    larger = ("--judge", "toy?source_size=original&jpeg_quality=75")
    code, said = run(data, tiny_editor_path, tmp_path / "out", *larger)
    words = "judge_settings None, now it is 'source_size=original, jpeg_quality=75'"
    assert code == 2 and words in " ".join(said.split())
    assert run(data, tiny_editor_path, tmp_path / "other", *larger)[0] == 0
    notes = compare([tmp_path / "out", tmp_path / "other"]).notes
    words = "(out: none, other: source_size=original, jpeg_quality=75)"
    assert notes == (f"Not comparable with each other, judge_settings differs {words}.",)


def test_edits_of_other_data_in_the_folder_are_refused(data: Path, tiny_editor_path: Path, tmp_path: Path) -> None:
    (tmp_path / "out/edits").mkdir(parents=True)
    (tmp_path / "out/edits/x.png").write_bytes(b"")
    (tmp_path / "out/edits.json").write_text('{"benchmark": "data", "data": "/elsewhere"}')
    code, said = run(data, tiny_editor_path, tmp_path / "out")
    assert code == 2 and "holds edits made with" in said.splitlines()[-1]
