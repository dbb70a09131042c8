"""What a run's folder says, also when the run was killed while writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.config.loading import load_config
from editr1.errors import UserError
from editr1.report.run import write_report
from editr1.report.run_folder import read_run
from tests.report.synthetic import write_demo, write_metrics


def test_pairs_join_the_same_item_and_seed_and_change_is_the_oracles(tmp_path: Path) -> None:
    results = write_demo(tmp_path / "run", items=12)
    run = read_run(tmp_path / "run")
    assert len(run.pairs) == 24
    assert all((p.before.key, p.before.index) == (p.after.key, p.after.index) for p in run.pairs)
    assert sum(pair.change for pair in run.pairs) / 24 == pytest.approx(results["oracle"]["delta"])
    assert run.train_seconds == 312.4
    assert run.oracle[1] == pytest.approx(0.454)


def test_steps_done_again_after_a_kill_count_once_and_a_cut_line_not_at_all(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run", steps=4)
    path = tmp_path / "run/metrics.jsonl"
    lines = path.read_text().splitlines()
    again = json.loads(lines[3]) | {"reward_mean": 0.99}
    path.write_text("\n".join([*lines, json.dumps(again), lines[0][:30]]))
    run = read_run(tmp_path / "run")
    assert [row["step"] for row in run.metrics] == [1, 2, 3, 4]
    assert run.metrics[3]["reward_mean"] == 0.99
    assert run.train_seconds == pytest.approx(4 * 5.5)


def test_code_that_a_run_names_is_not_imported_and_its_words_are_the_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    write_metrics(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["algorithm"]["name"] = "evil:Loss"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(tmp_path).algorithm == ("evil:Loss", {})
    words = {"title": "<b>", "parts": {"kl": "<i>"}}
    (tmp_path / "session.json").write_text(json.dumps({"algorithm": words}))
    assert read_run(tmp_path).algorithm == ("<b>", {"kl": "<i>"})
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "&lt;b&gt;" in page and "&lt;i&gt;" in page and "<b>" not in page and "<i>" not in page


KEPT = {"kept": {"kind": "preservation", "masks": "edit"}}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"judge": None, "rewards": KEPT}, "an edit that changes nothing gets the most"),
        ({"rewards": KEPT, "preservation": {"advantages": "region"}}, "are not the same regions"),
    ],
)
def test_a_run_of_a_version_that_trained_with_what_is_refused_now_is_still_reported_but_not_trained(
    tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    write_metrics(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))
    with pytest.raises(UserError, match=complaint):
        load_config(file)
    assert read_run(tmp_path).config["rewards"]["kept"]["masks"] == "edit"
    assert "kept" in write_report(tmp_path).read_text(encoding="utf-8")
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"steps": 0}))
    with pytest.raises(UserError, match="steps"):
        read_run(tmp_path)


@pytest.mark.parametrize("words", [3, [], {"title": "x"}, {"title": 3, "parts": {}}, {"title": "x", "parts": ["kl"]}])
def test_damaged_words_of_an_algorithm_are_told(tmp_path: Path, words: object) -> None:
    write_metrics(tmp_path)
    (tmp_path / "session.json").write_text(json.dumps({"algorithm": words}))
    with pytest.raises(UserError, match=r"session\.json: damaged: algorithm"):
        read_run(tmp_path)
