"""What must not change, in the page of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from editr1.cli.measured import kept_outside
from editr1.config.loading import load_config
from editr1.evaluation.heldout.rows import EditRow
from editr1.evaluation.paired import change, summarise
from editr1.preservation.measure import NAMES
from editr1.report.outside import TITLES, outside_charts, task_charts, trained_words
from editr1.report.run import score_tables, write_report
from tests.report.synthetic import write_demo, write_metrics


def measured_run(folder: Path) -> Path:
    """A demo's folder whose steps are measured; every fifth one is not."""
    write_demo(folder)
    file = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        psnr = 24 - 0.05 * row["step"]
        means = {"psnr": psnr, "ssim": 0.85, "ceiling_psnr": 27.5, "ceiling_ssim": 0.91, "measured": 0.8}
        row["outside"] = {"measured": 0.0} if row["step"] % 5 == 0 else means
        row["outside_by_task"] = {} if row["step"] % 5 == 0 else {"psnr/add": psnr + 1, "psnr/remove": psnr - 1}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_page_has_curves_beside_their_ceiling_and_by_task(tmp_path: Path) -> None:
    page = write_report(measured_run(tmp_path / "run")).read_text()
    assert "What must not change" in page and "PSNR outside of the masks (dB)" in page and "PSNR by task" in page
    assert "ceiling: 27.5" in page and "ceiling: 0.91" in page
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [title for title, _, _ in task_charts(rows)] == ["add", "remove"]
    assert "edits: 23.95 at first, 22.05 at last" in page, "a step that was not measured is a gap, not a zero"


def test_a_run_without_masks_has_no_section(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    assert "What must not change" not in write_report(tmp_path / "run").read_text()
    assert outside_charts([{"step": 1, "outside": {"measured": 0.0}}]) == []


def test_a_run_with_a_second_judge_and_no_oracle_has_a_report(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    file = tmp_path / "run/metrics.jsonl"
    rows = [{**json.loads(line), "watched": {"judge": 0.5}} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert write_report(tmp_path / "run").is_file()


def held_out(gain: float, key: str = "a") -> list[EditRow]:
    """Two edits of an item each of which is measured, and an item with one that is not."""
    row = EditRow(key, "add", 0, "go", 0.5, None, {}, "x.png", {"psnr": 20.0 + gain, "ssim": 0.8, "ceiling_psnr": 30.0})
    other = replace(row, index=1, outside={"psnr": 22.0 + gain, "ssim": 0.9, "ceiling_psnr": 30.0})
    return [row, other, replace(row, key="b"), replace(other, key="b", outside={})]


def test_held_out_edits_are_compared_over_the_items_whose_edits_are_all_measured() -> None:
    results = summarise(held_out(0.0), held_out(1.5), seed=0, train_seconds=1.0)
    assert (results["psnr"]["before"], results["psnr"]["delta"]) == (21.0, 1.5)
    assert results["by_task"]["add"]["ssim"]["before"] == pytest.approx(0.85)
    assert [table["name"] for table in score_tables(results)] == ["judge", "psnr", "ssim"]
    said = "PSNR outside of the masks: 21.00 dB before, 22.50 after (+1.50 [+1.50, +1.50])"
    assert kept_outside(results) == f"{said}; the round trip of the VAE, which is the ceiling, has 30.00."
    del results["psnr"]["ceiling"]  # of an earlier version
    assert kept_outside(results) == f"{said}."
    plain = [replace(row, outside={}) for row in held_out(0.0)]
    assert "psnr" not in (bare := summarise(plain, plain, seed=0, train_seconds=1.0)) and kept_outside(bare) == ""


def test_the_page_says_what_of_the_training_sees_the_outside() -> None:
    assert trained_words(load_config("toy", []).model_dump(mode="json")) == "Nothing is trained on it."
    mixed = load_config("toy", ["+preserve"]).model_dump(mode="json")
    assert trained_words(mixed) == "Trained on it: the reward of kind preservation (kept)."
    changes = ["+preserve", "preservation={masks: either, weight: 1, advantages: region}"]
    words = trained_words(load_config("toy", changes).model_dump(mode="json"))
    assert words.endswith("(kept), the loss by preservation.weight, the advantages by region.")


def with_ceiling(key: str, task: str, psnr: float, ceiling: float) -> EditRow:
    outside = {"psnr": psnr, "ssim": 0.8, "ceiling_psnr": ceiling}
    return EditRow(key, task, 0, "go", 0.5, None, {}, "x.png", outside)


def test_the_ceiling_beside_held_out_edits_is_of_the_items_that_the_figures_are_of(tmp_path: Path) -> None:
    before = [with_ceiling("a", "add", 20, 30), with_ceiling("b", "add", 22, 34), with_ceiling("c", "style", 10, 40)]
    after = [before[0], replace(before[1], outside={}), before[2]]
    results = summarise(before, after, seed=0, train_seconds=1.0)
    assert results["psnr"]["ceiling"] == 35.0, "of a and c alone"
    assert [results["by_task"][task]["psnr"]["ceiling"] for task in ("add", "style")] == [30.0, 40.0]
    assert "ceiling" not in results["ssim"] and "ceiling" not in results["judge"]
    assert [table["ceiling"] for table in score_tables(results)] == [False, True, False]
    write_demo(tmp_path)
    curve = [{"step": step, **change(before, after, 0)} for step in (5, 10)]
    (tmp_path / "results.json").write_text(json.dumps({**results, "curve": curve}))
    page = write_report(tmp_path).read_text()
    assert page.count(">Ceiling</th>") == 1 and '<td class="num">35.00</td>' in page
    assert "Ceiling, the VAE&#39;s round trip: 35.00." in page


def test_the_table_of_every_measure_has_a_caption(tmp_path: Path) -> None:
    write_demo(tmp_path)
    rows = [replace(with_ceiling(key, "style", 20, 30), outside=dict.fromkeys(NAMES, 0.5)) for key in "ab"]
    (tmp_path / "results.json").write_text(json.dumps(summarise(rows, rows, seed=0, train_seconds=1.0)))
    page = write_report(tmp_path).read_text()
    assert [name for name in NAMES if f"<caption>{TITLES[name]}</caption>" not in page] == []
