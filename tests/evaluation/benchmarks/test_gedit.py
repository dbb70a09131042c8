"""GEdit-Bench: both layouts on disk, the official rule, its files, and its aggregation by independent means."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from editr1.errors import UserError
from editr1.evaluation.benchmarks.gedit import TYPES, GEdit, careful_scores, official_scores

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PIECES = st.sampled_from(
    [
        '{"score": ',
        "[",
        "]",
        "}",
        "{",
        "6",
        "8.5",
        ", ",
        "，",
        "||V^=^V||",
        '"score"',
        ":",
        "\n",
        "11",
        "null",
        "-1",
        "²",
        "好",
    ]
)
ANSWERS = st.one_of(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=14).map("".join), st.text(max_size=40))


def stored(colour: tuple[int, int, int], side: int = 64) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def rows(each: int = 1) -> list[dict[str, Any]]:
    """`each` items a type and language; every other one is in the intersection."""
    made = []
    for number in range(len(TYPES) * each):
        for language in ("en", "cn"):
            colour = (20 * (number % 11), 40, 90)
            row: dict[str, Any] = {
                "task_type": TYPES[number % 11],
                "key": f"k{number}",
                "instruction": f'Do {number}; {language}, "so"',
            }
            row |= {"instruction_language": language, "Intersection_exist": number % 2 == 0}
            made.append(row | {"input_image": stored(colour), "input_image_raw": stored(colour, 96)})
    return made


def save(folder: Path, made: list[dict[str, Any]], kind: str = "parquet") -> Path:
    (folder / "data").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(made)
    if kind == "parquet":
        parquet.write_table(table, folder / "data/train-00000-of-00001.parquet", row_group_size=4)
    else:
        with pyarrow.ipc.new_stream(str(folder / "data/data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
    return folder


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_items_of_both_layouts_on_disk_are_the_rows(tmp_path: Path, kind: str) -> None:
    bench = GEdit(save(tmp_path, rows(), kind))
    assert [item.task for item in bench.items] == 2 * list(TYPES)
    first, last = bench.items[0], bench.items[-1]
    assert first.edit_file == "fullset/background_change/en/k0.png"
    assert first.source_file == "fullset/background_change/en/k0_SRCIMG.png"
    assert first.subsets == ("en full", "en intersection") and bench.items[1].subsets == ("en full",)
    assert last.instruction == 'Do 10; cn, "so"' and last.source().getpixel((0, 0)) == (200, 40, 90)
    assert last.original is not None and last.original().size == (96, 96) and last.source().size == (64, 64)
    assert len(GEdit(tmp_path, limit=2).items) == 4


@given(ANSWERS)
def test_any_answer_is_read_or_dropped_and_a_careful_reading_is_two_scores_of_the_scale(text: str) -> None:
    assert all(0 <= number < math.inf for number in official_scores(text))
    careful = careful_scores(text)
    assert len(careful) in (0, 2) and all(0 <= number <= 10 for number in careful)


@given(st.lists(st.integers(0, 10), min_size=1, max_size=3), st.text("abc{}[]好 ,:'", max_size=12))
def test_json_as_asked_for_is_read_whatever_it_reasons(scores: list[int], reasoning: str) -> None:
    text = json.dumps({"score": scores, "reasoning": reasoning}, ensure_ascii=False, indent=1)
    for answer in (text, f"||V^=^V||{text}||V^=^V||", f"```json\n{text}\n```"):
        assert official_scores(answer) == tuple(scores)


@pytest.mark.parametrize(
    ("text", "official", "careful"),
    [
        ('{"score": [6, 8], "reasoning": "ok"}', (6, 8), (6, 8)),
        ('{"score": 7, "reasoning": "ok"}', (7,), ()),
        ("{score: 5, reasoning: fine}", (5,), ()),
        ('Sure:\n{"score" : [6.5, 8],\n"reasoning" : "ok"}', (6.5, 8), (6.5, 8)),
        ("[6, 0]", (6, 0), (6, 0)),
        ("Scores [6,0].", (6, 0), (6, 0)),
        ("[6.5, 0]", (), (6.5, 0)),
        ("7", (7,), ()),
        ("11", (), ()),
        ('{"score": [6, 8], "reasoning": "say "hi""}', (), (6, 8)),
        ('{"score": [6, 8], "reasoning": "cut', (6, 8), (6, 8)),
        ('{"score": [6，8]}', (), (6, 8)),
        ('{"score": ["6", "8"]}', (), ()),
        ('{"score": []}', (), ()),
        ('{"score": [-1, 8]}', (), ()),
        ('{"score": [NaN, 8]}', (), ()),
        ('{"score": [60, 80]}', (60, 80), ()),
        ("[01, 2]", (), (1, 2)),
        ("", (), ()),
    ],
)
def test_readings_of_answers_as_judges_write_them(text: str, official: Any, careful: Any) -> None:
    assert official_scores(text) == official and careful_scores(text) == careful


def test_official_files_and_tables_equal_an_independent_computation(tmp_path: Path) -> None:
    bench = GEdit(save(tmp_path / "data", rows(4)), judge="openai:http://host/v1?model=Qwen2.5-VL-72B")
    draw, out = random.Random(0), tmp_path / "mine"
    answers = {
        item.key: {
            "consistency": json.dumps({"score": [draw.randint(0, 10), draw.randint(0, 10)]}),
            "quality": json.dumps({"score": [draw.randint(0, 10), draw.randint(0, 10)]}),
        }
        for item in bench.items
    }
    answers[bench.items[0].key]["quality"] = "I cannot say."
    tables = bench.finish([bench.score(item, answers[item.key], {}) for item in bench.items], out)

    for language in ("en", "cn"):
        for subset in ("full", "intersection"):
            types: dict[str, list[float]] = {}
            for task in TYPES:
                name = out / "qwen25vl/eval_results_new" / f"mine_{task}_gpt_score.csv"
                for line in csv.DictReader(io.StringIO(name.read_text())):
                    inside = subset == "full" or line["intersection_exist"] == "True"
                    if line["instruction_language"] == language and inside:
                        product = float(line["sementics_score"]) * float(line["quality_score"])
                        types.setdefault(task, []).append(math.sqrt(product))
            *lines, overall = tables[f"{language} {subset}"]
            assert {line.name: line.means["O"] for line in lines} == pytest.approx(
                {task: float(np.mean(values)) for task, values in types.items()}
            )
            assert overall.means["O"] == pytest.approx(np.mean([np.mean(values) for values in types.values()]))
    assert [tables[name][-1].dropped for name in ("en full", "en intersection", "cn full")] == [1, 1, 0]
    both = list(
        csv.DictReader(io.StringIO((out / "qwen25vl/eval_results_new/mine_combined_gpt_score.csv").read_text()))
    )
    assert len(both) == len(bench.items) - 1
    assert both[0]["source_image"] == "mine/fullset/background_change/en/k11_SRCIMG.png"
    item = bench.items[1]
    for result in [bench.score(item, answers[item.key], {})]:
        lists = [json.loads(answers[item.key][name])["score"] for name in ("consistency", "quality")]
        assert [result.scores["SC"], result.scores["PQ"]] == [min(lists[0]), min(lists[1])]


def test_the_edit_is_judged_in_the_sources_size_and_quality_without_the_source(tmp_path: Path) -> None:
    bench = GEdit(save(tmp_path, rows()))
    source, edit = bench.items[0].source(), Image.new("RGB", (128, 96))
    asked = bench.questions(bench.items[0], source, edit)
    consistency, quality = asked["consistency"].ask, asked["quality"].ask
    assert consistency.parts[1] is source and consistency.parts[2].size == source.size  # type: ignore[union-attr]
    assert len(quality.parts) == 2 and quality.parts[1].size == source.size  # type: ignore[union-attr]
    assert consistency.temperature == quality.temperature == 0 and 'Do 0; en, "so"' in consistency.parts[0]  # type: ignore[operator]
    for question in asked.values():
        assert official_scores(question.write([6.4, 8.0])) == (6, 8)


def test_the_users_official_prompts_are_read_not_run(tmp_path: Path) -> None:
    folder = save(tmp_path, rows())
    assert GEdit(folder).prompts == "own wording"
    words = {
        "_context_no_delimit": "Context.",
        "_prompts_0shot_two_image_edit_rule": "Two.",
        "_prompts_0shot_tie_rule_SC": "Edit: <instruction>",
        "_prompts_0shot_rule_PQ": "One.",
    }
    text = "raise SystemExit('must not run')\n" + "\n".join(f'{name} = """{word}"""' for name, word in words.items())
    (folder / "vie_prompts.py").write_text(text)
    bench = GEdit(folder)
    picture = bench.items[0].source()
    asked = bench.questions(bench.items[0], picture, picture)
    assert bench.prompts == "official"
    assert asked["consistency"].ask.parts[0] == 'Context.\nTwo.\nEdit: Do 0; en, "so"'
    assert asked["quality"].ask.parts[0] == "Context.\nOne."
    (folder / "vie_prompts.py").write_text("_context_no_delimit = 'x'")
    with pytest.raises(UserError, match="there is no _prompts_0shot_rule_PQ"):
        GEdit(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_type": "cooking"}, "task_type 'cooking'"),
        ({"key": "../x"}, "must be usable as a file name"),
        ({"instruction_language": "fr"}, "instruction_language 'fr'"),
        ({"instruction": ""}, "instruction must be text"),
    ],
)
def test_what_is_wrong_in_a_row_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    made = rows()
    made[3] |= change
    with pytest.raises(UserError, match=message) as error:
        GEdit(save(tmp_path, made))
    assert "row 3" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_the_benchmark_and_one_with_it_twice_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no parquet or Arrow file with the columns"):
        GEdit(tmp_path)
    save(tmp_path / "a", rows())
    save(tmp_path / "b", rows())
    with pytest.raises(UserError, match="an item twice"):
        GEdit(tmp_path)
