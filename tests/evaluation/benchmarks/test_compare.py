"""Results beside each other: differences and intervals by independent computation, published rows, files, the page."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter
from scipy import stats

from editr1.errors import UserError
from editr1.evaluation.benchmarks.base import Line
from editr1.evaluation.benchmarks.compare import changes_of, compare, write_comparison
from editr1.evaluation.benchmarks.published import published
from editr1.evaluation.benchmarks.results import (
    ItemRow,
    Result,
    csv_text,
    misread,
    read_result,
    write_result,
)
from editr1.evaluation.paired import mean_of_types
from editr1.report.benchmark import spread, write_benchmark_report
from editr1.report.comparison import write_comparison_report
from editr1.report.svg import radar, ranked_bars
from editr1.report.tables import grids, latex, markdown, terminal_tables
from editr1.report.thumbnails import thumbnail

TYPES = ("add", "remove", "style")


def result(shift: float = 0.0, judge: str = "a", benchmark: str = "imgedit", items: int = 30) -> Result:
    """Made-up scores: some up, some down, two items without one."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(items):
        base = float(rng.uniform(1, 4))
        score = None if i in (3, 4) and shift else round(base + shift * float(rng.normal(1, 2)), 2)
        made = ItemRow(
            str(i), TYPES[i % 7 % 3], ("all",), f"Do <{i}> & more", f"s{i}.png", f"{i}.png", {"score": score}, score
        )
        rows.append(made)
    lines = []
    for task in TYPES:
        known = [row.scores["score"] for row in rows if row.task == task and row.scores["score"] is not None]
        count = sum(row.task == task for row in rows)
        lines.append(Line(task, count, count - len(known), {"score": float(np.mean(known))}, float(np.mean(known))))
    overall = float(np.mean([line.means["score"] for line in lines]))
    dropped = sum(line.dropped for line in lines)
    lines.append(Line("overall", items, dropped, {"score": overall}, overall))
    made_with = {"judge": judge, "asked": "written", "prompts": "official", "best_of": 1}
    return Result(benchmark, ("score",), 5.0, "types", made_with, {"all": tuple(lines)}, tuple(rows))


def save(folder: Path, made: Result) -> Path:
    folder.mkdir(parents=True)
    for row in made.items:
        Image.new("RGB", (300, 200), "red").save(folder / row.source)
        Image.new("RGB", (32, 32), "blue").save(folder / row.edit)
    write_result(made, folder)
    return folder


def test_a_result_is_read_as_it_was_written_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    made = result()
    assert read_result(save(tmp_path / "a", made)) == made == read_result(tmp_path / "a/results.json")
    with pytest.raises(UserError, match=r"no results\.json there"):
        read_result(tmp_path)
    (tmp_path / "results.json").write_text('{"items": 144, "by_task": {}}')
    with pytest.raises(UserError, match="not the result of a benchmark: benchmark"):
        read_result(tmp_path)
    rows = tuple(replace(row, scores={}) for row in made.items)
    (tmp_path / "results.json").write_text(TypeAdapter(Result).dump_json(replace(made, items=rows)).decode())
    with pytest.raises(UserError, match="damaged: a table, an item or a score is missing"):
        read_result(tmp_path)


def test_what_a_careful_reader_sees_otherwise_is_listed() -> None:
    made = result()
    rows = list(made.items)
    rows[0] = replace(rows[0], scores={"score": 3.5}, careful=3.8)
    rows[1] = replace(rows[1], scores={"score": None}, careful=None)
    rows[2] = replace(rows[2], scores={"score": 3.33}, careful=10 / 3)
    assert misread(replace(made, items=tuple(rows))) == rows[:2]


def test_changes_are_of_the_items_that_both_have_and_the_overall_is_the_mean_of_the_types() -> None:
    first, other = result(), result(0.3)
    changes = changes_of(first, other)["all"]["score"]
    pairs: dict[str, list[tuple[float, float]]] = {}
    for a, b in zip(first.items, other.items, strict=True):
        if b.scores["score"] is not None and a.scores["score"] is not None:
            pairs.setdefault(a.task, []).append((a.scores["score"], b.scores["score"]))
    for task, both in pairs.items():
        change, delta = changes[task], np.diff(np.array(both))[:, 0]
        assert change.delta == pytest.approx(delta.mean()) and change.items == len(both)
        assert (change.better, change.worse) == ((delta > 0).sum(), (delta < 0).sum())
    overall = changes["overall"]
    assert overall.delta == pytest.approx(np.mean([np.diff(np.array(both)).mean() for both in pairs.values()]))
    assert overall.items == 28 and overall.ci95[0] < overall.delta < overall.ci95[1]


def test_interval_of_the_mean_of_types_is_that_of_the_normal_law_for_many_items() -> None:
    rng = np.random.default_rng(1)
    types = [np.stack([np.zeros(n), rng.normal(0.2, s, n)], 1) for n, s in ((400, 1.0), (150, 0.5), (900, 2.0))]
    told = mean_of_types(types)
    error = np.sqrt(sum(t[:, 1].var(ddof=1) / len(t) for t in types)) / 3
    low, high = stats.norm.interval(0.95, told["delta"], error)
    assert told["ci95"] == pytest.approx([low, high], abs=0.1 * error)


def test_published_rows_are_those_of_the_paper_and_their_overall_is_the_mean_of_their_types() -> None:
    imgedit, gedit = published("imgedit"), published("gedit")
    assert imgedit is not None and gedit is not None and published("toy") is None
    assert imgedit.rows["UniWorld-V2"]["score", "overall"] == 4.49
    assert imgedit.rows["Qwen-Image-Edit-2509 + Edit-R1"]["score", "overall"] == 4.48
    assert imgedit.rows["FLUX.1 Kontext [dev]"]["score", "overall"] == 3.71
    assert gedit.rows["UniWorld-V2"]["O", "overall"] == 7.83 and gedit.subset == "en full"
    for name, row in imgedit.rows.items():
        types = [value for (_, line), value in row.items() if line != "overall"]
        assert not types or np.mean(types) == pytest.approx(row["score", "overall"], abs=0.046), name


def test_results_of_different_benchmarks_and_the_same_one_twice_are_refused(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a", result()), save(tmp_path / "b", result(benchmark="toy"))
    with pytest.raises(UserError, match="cannot compare results of imgedit and toy"):
        compare([a, b])
    with pytest.raises(UserError, match="the same result is given twice"):
        compare([a, a])


def test_another_judge_is_said_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    a, b = save(tmp_path / "x/run", result()), save(tmp_path / "y/run", result(0.2, judge="b"))
    found = compare([a, b])
    assert list(found.results) == ["x/run", "y/run"]
    assert found.notes[0] == "Not comparable with each other, judge differs (x/run: a, y/run: b)."
    assert "GPT-4.1" in found.notes[-2] and "Here: a, b" in found.notes[-2]


MADE = {
    "editor": "Qwen/Qwen-Image-Edit-2509",
    "lora": None,
    "lora_scale": None,
    "steps": 28,
    "seed": 0,
    "scheduler": "euler",
    "guidance": 4.0,
    "pixels": None,
    "best_of": 1,
    "data": "30 items",
    "prompt_tokens": 100,
}


def made_as(**other: Any) -> Result:
    made = result()
    return replace(made, made_with={**made.made_with, **MADE, **other})


def told(tmp_path: Path, first: Result, other: Result) -> list[str]:
    return list(compare([save(tmp_path / "a", first), save(tmp_path / "b", other)]).notes)


def test_results_that_are_made_alike_and_as_the_published_rows_have_no_note_of_a_difference(tmp_path: Path) -> None:
    notes = told(tmp_path, made_as(), made_as(prompt_tokens=7))
    assert len(notes) == 2 and not any("differs" in note or "not sampled" in note for note in notes)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("guidance", 1.0, "a: 4.0, b: 1.0"),
        ("steps", 10, "a: 28, b: 10"),
        ("scheduler", "dpm2", "a: euler, b: dpm2"),
        ("pixels", 65536, "a: none, b: 65536"),
        ("best_of", 8, "a: 1, b: 8"),
    ],
)
def test_each_setting_of_the_edits_that_differs_is_named_and_so_is_its_distance_from_the_published_rows(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    notes = told(tmp_path, made_as(), made_as(**{key: value}))
    assert notes[0] == f"The edits were made differently, {key} differs ({words}): this may be the cause of a change."
    original = words.split(",")[0].removeprefix("a: ")
    assert f"b is not sampled as the published rows are: {key} {value} instead of {original}." in notes
    assert len(notes) == 4


@pytest.mark.parametrize(
    ("key", "value", "note"),
    [
        ("seed", 7, "The edits were made differently, seed differs (a: 0, b: 7): this may be the cause of a change."),
        (
            "later",
            1,
            "The edits were made differently, later differs (a: unknown, b: 1): this may be the cause of a change.",
        ),
        ("data", "9 items", "Not of the same data: data differs (a: 30 items, b: 9 items)."),
        ("prompts", "own", "Not comparable with each other, prompts differs (a: official, b: own)."),
        ("asked", "score_logit", "Not comparable with each other, asked differs (a: written, b: score_logit)."),
    ],
)
def test_a_difference_of_noise_data_or_questions_is_named_as_what_it_is(
    tmp_path: Path, key: str, value: Any, note: str
) -> None:
    assert told(tmp_path, made_as(), made_as(**{key: value}))[0] == note


def test_other_weights_are_what_is_compared_and_no_warning(tmp_path: Path) -> None:
    lora = {"lora": "runs/q.safetensors", "lora_crc32": "0a", "lora_scale": 2.0}
    (first, second, *others) = told(tmp_path, made_as(), made_as(**lora))
    assert first == "What is compared: lora differs (a: none, b: runs/q.safetensors)."
    assert second == "What is compared: lora_scale differs (a: none, b: 2.0)."
    assert len(others) == 2 and not any("differs" in note or "not sampled" in note for note in others)


def test_a_lora_of_an_older_result_has_the_scale_one_and_other_weights_of_one_name_are_told_apart(
    tmp_path: Path,
) -> None:
    lora = {"lora": "runs/q.safetensors", "lora_crc32": "0a", "lora_scale": 1.0}
    old = made_as(**lora)
    old.made_with.pop("lora_scale")
    assert told(tmp_path / "same", old, made_as(**lora))[0].startswith("Published rows")
    notes = told(tmp_path / "other", old, made_as(**lora | {"lora_crc32": "0b"}))
    assert notes[0] == "What is compared: lora_crc32 differs (a: 0a, b: 0b)."


@pytest.mark.parametrize(
    ("editor", "guidance", "alike"),
    [
        ("black-forest-labs/FLUX.1-Kontext-dev", 3.5, True),
        ("black-forest-labs/FLUX.1-Kontext-dev", 2.5, False),
        ("models/Qwen-Image-Edit", 3.5, False),
        ("models/another", 1.0, True),  # no published guidance is known
    ],
)
def test_guidance_is_compared_with_that_of_the_same_published_editor(
    tmp_path: Path, editor: str, guidance: float, alike: bool
) -> None:
    notes = told(tmp_path, made_as(editor=editor, guidance=guidance), made_as(editor=editor, guidance=guidance))
    unlike = [note for note in notes if "is not sampled as" in note]
    assert [f"guidance {guidance} instead of" in note for note in unlike] == ([] if alike else [True, True])
    assert "with 28 steps and guidance 4 (Qwen-Image-Edit) or 3.5 (FLUX.1 Kontext)" in notes[-1]


def test_a_comparison_on_gedit_says_that_the_judge_of_the_published_rows_is_not_named(tmp_path: Path) -> None:
    rows = tuple(replace(row, scores={"O": row.scores["score"]}) for row in result().items)
    lines = tuple(replace(line, means={"O": line.means["score"]}) for line in result().tables["all"])
    made = replace(result(benchmark="gedit"), metrics=("O",), tables={"en full": lines}, items=rows)
    assert "judged by a judge that the paper does not name" in told(tmp_path, made, made)[-2]


def test_differences_are_in_the_file_and_on_the_page(tmp_path: Path) -> None:
    first, other = save(tmp_path / "a", made_as()), save(tmp_path / "b", made_as(guidance=1.0, lora="runs/q"))
    found = compare([first, other])
    write_comparison(found, tmp_path)
    page = write_comparison_report(found, tmp_path).read_text()
    for note in ("What is compared: lora differs (a: none, b: runs/q)", "guidance differs (a: 4.0, b: 1.0)"):
        assert note in page and note in (tmp_path / "compare.md").read_text()
        assert any(note in line for line in json.loads((tmp_path / "compare.json").read_text())["notes"])


def test_files_and_page_of_a_comparison_hold_all_rows_and_nothing_from_outside(tmp_path: Path) -> None:
    found = compare([save(tmp_path / "base", result()), save(tmp_path / "new_one", result(0.4))])
    write_comparison(found, tmp_path)
    page = write_comparison_report(found, tmp_path).read_text()
    told = json.loads((tmp_path / "compare.json").read_text())
    assert told["changes"]["new_one"]["all"]["score"]["overall"]["items"] == 28
    lines = (tmp_path / "compare.md").read_text().splitlines()
    assert any(line.startswith("| UniWorld-V2 | score |") and line.endswith("| 4.49 |") for line in lines)
    assert r"new\_one & score" in (tmp_path / "compare.tex").read_text()
    assert "Largest gains: new_one" in page and "Largest losses: new_one" in page and "UniWorld-V2" in page
    assert "Do &lt;" in page and "Do <" not in page and "&amp; more" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "<script" not in page
    one = compare([tmp_path / "base"])
    assert not one.changes and "Largest" not in write_comparison_report(one, tmp_path / "one").read_text()


def test_page_of_a_result_shows_each_type_from_best_to_worst_and_lists_what_has_no_score(tmp_path: Path) -> None:
    made = result(0.4)
    rows = [replace(row, answers={"judge": "No <idea>."}) if row.scores["score"] is None else row for row in made.items]
    made = replace(made, items=tuple(rows))
    page = write_benchmark_report(made, save(tmp_path / "a", made)).read_text()
    assert all(f"<h3>{task}</h3>" in page for task in TYPES)
    assert "No &lt;idea&gt;." in page and "2 without a score" in page and "<p>2 items.</p>" in page
    assert page.count("data:image/jpeg") == 18 and not re.search(r'(?:src|href)="(?!data:)', page)


def test_table_and_page_of_a_result_name_guidance_and_the_scale_of_the_lora(tmp_path: Path) -> None:
    made = made_as(lora="runs/q", lora_scale=2.0)
    page = write_benchmark_report(made, save(tmp_path / "a", made)).read_text()
    words = "lora runs/q, lora scale 2.0, steps 28, scheduler euler, guidance 4.0, seed 0, best of 1"
    assert f"Edits: editor Qwen/Qwen-Image-Edit-2509, {words}" in (tmp_path / "a/results.md").read_text()
    assert "<dt>lora scale</dt><dd>2.0</dd>" in page and "<dt>guidance</dt><dd>4.0</dd>" in page


def test_a_picture_outside_the_folder_is_not_shown(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "a").mkdir()
    assert thumbnail(tmp_path / "a", "../secret.png") == thumbnail(tmp_path / "a", "") == ""
    assert thumbnail(tmp_path, "secret.png").startswith("data:image/png")


def test_tables_of_all_kinds_hold_the_same_numbers(tmp_path: Path) -> None:
    made = result(0.3)
    lines = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert [line["type"] for line in lines] == [*TYPES, "overall"]
    overall = f"{float(lines[-1]['score']):.2f}"
    ((title, columns, cells),) = grids({"a_b|c": made})
    assert (
        cells[0][-1] == overall and cells[1][1] == "careful" and columns == ["editor", "scored by", *TYPES, "overall"]
    )
    assert f"| {overall} |\n" in markdown(title, columns, cells) and "a_b\\|c" in markdown(title, columns, cells)
    text = latex(title, columns, cells)
    assert f" & {overall} \\\\\n" in text and r"a\_b|c" in text and text.count("&") == 5 * 3
    (table,) = terminal_tables(made)
    assert table.row_count == 4


@given(st.lists(st.integers(), max_size=40), st.integers(2, 8))
def test_a_gallery_is_spread_from_first_to_last(numbers: list[int], count: int) -> None:
    rows: list[Any] = numbers
    shown = spread(rows, count)
    assert len(shown) == min(len(rows), count)
    if rows:
        assert shown[0] == rows[0] and shown[-1] == rows[-1]


def test_charts_name_every_result_and_break_where_a_type_is_missing() -> None:
    drawn = ranked_bars("O", {"mine": 3.0, "paper <x>": 4.0}, {"mine": "a"}, 5.0)
    assert drawn.index("paper &lt;x&gt;") < drawn.index("mine") and 'class="bar a"' in drawn and "paper" in drawn
    tones = {"mine": "quiet", "other": "a"}
    web = radar("O", TYPES, {"mine": [1.0, 2.0, 3.0], "other": [1.0, None, 2.0]}, tones, 5.0)
    assert web.count('class="line quiet"') == 1 and "<polyline" in web and all(task in web for task in TYPES)
    assert radar("O", TYPES[:2], {"mine": [1.0, 2.0]}, tones, 5.0) == ""


def test_every_setting_of_the_edits_that_differs_is_told_and_how_published_edits_were_made(tmp_path: Path) -> None:
    settings = {"guidance": 4.0, "steps": 28, "scheduler": "euler", "pixels": None, "seed": 0, "lora_scale": 1.0}
    others = {"guidance": 1.0, "steps": 10, "scheduler": "dpm2", "pixels": 4096, "seed": 1, "lora_scale": 0.5}
    for name, values in {"a": settings, "b": others, "old": {}}.items():
        made = result()
        save(tmp_path / name, replace(made, made_with={**made.made_with, **values}))
    notes = compare([tmp_path / "a", tmp_path / "b", tmp_path / "old"]).notes
    for key, value in settings.items():
        words = f"{key} differs (a: {'none' if value is None else value}, b: {others[key]}, old: unknown)"
        assert [note for note in notes if words in note], key
    assert "28 steps and guidance 4 (Qwen-Image-Edit) or 3.5" in notes[-1] and "b: 10 steps, guidance 1.0" in notes[-1]
    assert not [note for note in compare([tmp_path / "a"]).notes if "differs" in note]


def test_the_paper_names_the_judge_of_imgedit_alone() -> None:
    imgedit, gedit = published("imgedit"), published("gedit")
    assert imgedit is not None and imgedit.judge == "GPT-4.1"
    assert gedit is not None and "GPT" not in gedit.judge
