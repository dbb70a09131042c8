"""ImgEdit-Bench's UGE suite: the folder, the official rule and files, the careful reader, the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.errors import UserError
from editr1.evaluation.benchmarks.imgedit_uge import ImgEditUGE, careful_number
from editr1.evaluation.benchmarks.results import read_result
from tests.evaluation.benchmarks.folders import imgedit_folder


def uge_folder(folder: Path, items: int = 4) -> Path:
    """The suite in its official layout, of toy items."""
    entries = json.loads((imgedit_folder(folder, items) / "basic_edit.json").read_text())
    whole = {key: {"id": entry["id"], "prompt": entry["prompt"]} for key, entry in entries.items()}
    (folder / "UGE_edit.json").write_text(json.dumps(whole))
    (folder / "basic_edit.json").unlink()
    return folder


def official_average(answers: dict[str, str]) -> float | None:
    """As the official `get_average_score.py` computes it, in other words."""
    items = []
    for text in answers.values():
        ends = [line.strip().split(": ") for line in text.splitlines()]
        numbers = [int(parts[1]) for parts in ends if len(parts) == 2 and re.fullmatch(r"[0-9]+", parts[1])]
        items += [round(sum(numbers) / len(numbers), 2)] if numbers else []
    return round(sum(items) / len(items), 2) if items else None


@pytest.mark.parametrize(
    ("text", "official", "careful"),
    [
        ("Fine, but a leg is gone.\nScore: 4", (4,), (4,)),
        ("Brief reasoning: Heavy changes. Score: 2.", (), (2,)),  # these three are on the official page
        ("Brief reasoning: Logos replaced; edits slightly unnatural. Score: 3 (Acceptable)", (), (3,)),
        ("Brief reasoning: One car is unchanged, deviating from instructions. Score: 2 (Fair).", (), (2,)),
        ("**Score:** 4.5/5", (), (4.5,)),
        ("Score: 4/5\nFinal score: 4", (4,), (4,)),
        ("Score: 4\nScore: 2", (4, 2), ()),
        ("Score: 7", (7,), ()),
        ("4", (), ()),
        ("I like it: 4", (4,), ()),
        ("The score is 4.", (), ()),
    ],
)
def test_readings_of_answers_as_judges_write_them(tmp_path: Path, text: str, official: Any, careful: Any) -> None:
    bench = ImgEditUGE(uge_folder(tmp_path, 1))
    reading = bench.read(bench.items[0], "judge", text)
    assert reading.numbers == official and reading.careful == careful


@given(st.text(st.sampled_from("score:S 123456./*()\n")))
def test_a_careful_reader_gives_one_score_of_the_scale_or_none(text: str) -> None:
    found = careful_number(text)
    assert len(found) in (0, 1) and all(1 <= number <= 5 for number in found)


def test_the_table_is_the_official_average_of_the_raw_answers(tmp_path: Path) -> None:
    bench = ImgEditUGE(uge_folder(tmp_path / "data", 5))
    keys = [item.key for item in bench.items]
    answers: dict[str, str | None] = dict(zip(keys, ["Score: 4", "A: 5\nB: 2", "none", "Score: 2.", None], strict=True))
    results = [bench.score(i, {"judge": answers[i.key]}, {"judge": "dead"}) for i in bench.items]
    (overall,) = bench.finish(results, tmp_path)["all"]
    raw = json.loads((tmp_path / "result.json").read_text())
    assert raw == {key: text for key, text in answers.items() if text is not None}
    mean = overall.means["score"]
    assert mean is not None and round(mean, 2) == official_average(raw) == 3.75
    assert (overall.name, overall.items, overall.dropped, overall.careful) == ("overall", 5, 3, 3.0)


def test_the_users_prompt_is_used_word_by_word_and_read_but_not_run(tmp_path: Path) -> None:
    folder = uge_folder(tmp_path, 1)
    own = ImgEditUGE(folder)
    picture = Image.new("RGB", (8, 8))
    question = own.questions(own.items[0], picture, picture)["judge"]
    words = question.ask.parts[0]
    assert own.prompts == "own wording" and isinstance(words, str) and own.items[0].instruction in words
    assert own.read(own.items[0], "judge", question.write([4.4])).numbers == (4,)
    assert list(question.criteria.values()) == list(own.criteria) == ["overall"]
    (folder / "UGE_bench.py").write_text('raise SystemExit\nprompt = """\nRate <edit_prompt>.\n"""\n')
    official = ImgEditUGE(folder)
    asked = official.questions(official.items[0], picture, picture)["judge"].ask
    assert official.prompts == "official" and asked.parts == (f"\nRate {own.items[0].instruction}.\n", picture, picture)
    (folder / "UGE_bench.py").write_text('prompt = "Rate it."\n')
    with pytest.raises(UserError, match="there is no prompt with <edit_prompt>"):
        ImgEditUGE(folder)


def test_what_is_wrong_in_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"UGE_edit.json; --data must be the benchmark's folder"):
        ImgEditUGE(tmp_path)
    uge_folder(tmp_path, 1)
    for entries, words in (
        ({}, "holds no item"),
        ({"1": {"id": "../x.png", "prompt": "x"}}, "lies outside"),
        ({"1": {"id": "none.png", "prompt": "x"}}, "there is no image"),
        ({"1": {"id": "none.png"}}, "1.prompt"),
        ({"../1": {"id": "none.png", "prompt": "x"}}, "usable as a file name"),
    ):
        (tmp_path / "UGE_edit.json").write_text(json.dumps(entries))
        with pytest.raises(UserError, match=words):
            ImgEditUGE(tmp_path)


def test_the_command_runs_the_suite_and_refuses_others(tmp_path: Path) -> None:
    data = uge_folder(tmp_path / "data", 2)
    asked = ["--data", str(data), "--editor", "toy", "--judge", "toy", "--steps", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["eval", "imgedit", "--suite", "uge", *asked])
    assert result.exit_code == 0, result.output
    table = read_result(tmp_path / "out").tables["all"]
    assert [(line.name, line.items) for line in table] == [("overall", 2)]
    made = read_result(tmp_path / "out")
    assert made.benchmark == "imgedit-uge" and all(1 <= item.scores["score"] <= 5 for item in made.items)  # type: ignore[operator]
    assert (tmp_path / "out" / "index.html").is_file()
    for command, suite, words in (
        ("gedit", "uge", "eval gedit has basic"),
        ("imgedit", "x", "eval imgedit has basic, uge"),
    ):
        other = CliRunner().invoke(app, ["eval", command, "--suite", suite, *asked])
        assert other.exit_code == 2 and words in " ".join(other.output.split())
