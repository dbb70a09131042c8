"""ImgEdit-Bench: the folder, the official rule to the letter, the careful reader, the official files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.errors import UserError
from editr1.evaluation.benchmarks.imgedit import TYPES, ImgEdit, careful_numbers, official_numbers
from tests.evaluation.benchmarks.folders import plain_imgedit_folder

NAMES = st.sampled_from(["Prompt Compliance", "visual naturalness", "**Detail**", "一致性", "Note"])
ENDS = st.sampled_from([": 4", ": 4.5", ": 5/5", "：3", ":2", ": 6", ": ²", ": ", " 3", ": 1: 2", ": 0", ":  3"])
TEXTS = st.lists(st.one_of(st.builds(lambda a, b: a + b, NAMES, ENDS), st.text(max_size=20)), max_size=6).map("\n".join)


@given(TEXTS)
def test_official_numbers_are_those_of_lines_with_one_colon_space_and_digits_after_it(text: str) -> None:
    parts = [line.strip().split(": ") for line in text.splitlines()]
    ends = [part[1] for part in parts if len(part) == 2]
    assert official_numbers(text) == tuple(int(end) for end in ends if re.fullmatch(r"\d+", end))


@given(TEXTS)
def test_a_careful_reader_gives_three_scores_of_the_scale_or_none(text: str) -> None:
    found = careful_numbers(text)
    assert len(found) in (0, 3) and all(1 <= number <= 5 for number in found)
    official = official_numbers(text)
    if found and len(official) == 3:
        assert found == official


@pytest.mark.parametrize(
    ("text", "official", "careful"),
    [
        ("Brief reasoning: fine.\nA compliance: 4\nLooks: 3\nDetail: 2", (4, 3, 2), (4, 3, 2)),
        ("**Compliance:** 4\n**Looks:** 3\n**Detail:** 2", (), (4, 3, 2)),
        ("Compliance：4\nLooks：3\nDetail：2", (), (4, 3, 2)),
        ("Compliance: 4.5\nLooks: 3\nDetail: 2", (3, 2), (4.5, 3, 2)),
        ("Compliance: 4/5\nLooks: 3/5\nDetail: 2/5", (), (4, 3, 2)),
        ("Compliance: 4\nLooks: 3", (4, 3), ()),
        ("I would say 4.", (), ()),
        ("Compliance: 9\nLooks: 3\nDetail: 2", (9, 3, 2), ()),
    ],
)
def test_readings_of_answers_as_judges_write_them(text: str, official: Any, careful: Any) -> None:
    assert official_numbers(text) == official and careful_numbers(text) == careful


def test_official_files_and_table_follow_from_the_raw_answers_alone(tmp_path: Path) -> None:
    bench = ImgEdit(plain_imgedit_folder(tmp_path / "data"))
    answers = {item.key: f"Good: {1 + int(item.key) % 5}\nNice: 3\nKept: 4" for item in bench.items}
    answers["0"], answers["1"] = "no idea", "**Good**：5\nNice: 3.5\nKept: 4"
    del answers["2"]
    results = [
        bench.score(i, {"judge": answers.get(i.key)}, {} if i.key in answers else {"judge": "dead"})
        for i in bench.items
    ]
    tables = bench.finish(results, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == answers
    averages = json.loads((tmp_path / "average_score.json").read_text())
    assert averages["5"] == round((1 + 3 + 4) / 3, 2) and "0" not in averages and averages["1"] == 4.0
    types = json.loads((tmp_path / "typescore.json").read_text())
    by_type = {
        kind: [averages[k] for k in map(str, range(18)) if k in averages and int(k) % 9 == n]
        for n, kind in enumerate(TYPES)
    }
    assert types == {kind: round(sum(scores) / len(scores), 2) for kind, scores in by_type.items()}
    *lines, overall = tables["all"]
    assert [line.name for line in lines] == list(TYPES) and overall.items == 18 and overall.dropped == 2
    assert overall.means["score"] == pytest.approx(fmean(fmean(scores) for scores in by_type.values()))


def test_the_users_prompts_are_used_word_by_word_and_answers_written_in_their_form(tmp_path: Path) -> None:
    bench = ImgEdit(plain_imgedit_folder(tmp_path, prompts=True), limit=1)
    (item,) = bench.items
    source = item.source()
    question = bench.questions(item, source, source)["judge"]
    assert bench.prompts == "official" and question.ask.temperature == 0
    assert question.ask.parts[0].endswith("Edit 0.") and question.ask.parts[1:] == (source, source)  # type: ignore[union-attr]
    assert question.write([4.4, 1.0, 2.6]) == "A add: 4\nB b: 1\nC & c: 3"
    assert bench.read(item, "judge", question.write([4.4, 1.0, 2.6])).numbers == (4, 1, 3)
    own = ImgEdit(plain_imgedit_folder(tmp_path / "own"))
    assert own.prompts == "own wording"
    for item in own.items:
        assert list(own.questions(item, source, source)["judge"].criteria) == [
            "Instruction followed",
            "Natural look",
            "Rest preserved",
        ]


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (
            ("Prompt Compliance", "Visual Seamlessness", "Physical Consistency"),
            ["instruction", "quality", "preservation"],
        ),
        (("Style Fidelity", "Content Preservation", "Rendering Quality"), ["instruction", "preservation", "quality"]),
    ],
)
def test_official_names_stand_for_the_criteria_that_they_mean(
    tmp_path: Path, names: tuple[str, str, str], meant: list[str]
) -> None:
    folder = plain_imgedit_folder(tmp_path, prompts=True)
    text = "Rate <edit_prompt>.\n" + "".join(f"{name}: A number from 1 to 5.\n" for name in names)
    (folder / "prompts.json").write_text(json.dumps(dict.fromkeys(TYPES, text)))
    bench = ImgEdit(folder, limit=1)
    source = bench.items[0].source()
    criteria = bench.questions(bench.items[0], source, source)["judge"].criteria
    assert list(criteria) == list(names) and list(criteria.values()) == meant


def test_what_is_wrong_in_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be the benchmark's folder"):
        ImgEdit(tmp_path)
    plain_imgedit_folder(tmp_path)
    whole = json.loads((tmp_path / "basic_edit.json").read_text())
    for change, words in (
        ({"id": "../x.png"}, "lies outside"),
        ({"id": "add/none.jpg"}, "there is no image"),
        ({"edit_type": "magic"}, "edit_type 'magic'"),
        ({"prompt": 3}, "0.prompt"),
    ):
        (tmp_path / "basic_edit.json").write_text(json.dumps({**whole, "0": {**whole["0"], **change}}))
        with pytest.raises(UserError, match=words):
            ImgEdit(tmp_path)
    (tmp_path / "basic_edit.json").write_text(json.dumps({"../0": whole["0"]}))
    with pytest.raises(UserError, match="usable as a file name"):
        ImgEdit(tmp_path)
