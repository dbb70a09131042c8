"""Measuring agreement: right figures, nothing judged twice, nothing lost by a kill, nothing made up."""

from __future__ import annotations

import hashlib
import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from editr1.errors import UserError
from editr1.evaluation.agreement.agree import agree
from editr1.evaluation.agreement.toy_pairs import toy_pairs
from editr1.report.agreement import agreement_table, write_agreement_page
from tests.evaluation.agreement.cases import Brightness, grey, pair
from tests.report.browser import browse, needs_chromium

PAIRS = [
    pair("p0", "a", (200, 100), task="add"),
    pair("p1", "b", (90, 190), task="add", score_a=0.1, score_b=0.9),
    pair("p2", "a", (30, 60), task="remove"),
    pair("p3", "tie", (50, 50), task="remove"),
    pair("p4", "b", (200, 250), task="add"),  # 200 was judged in p0
]
EDITS = [30, 50, 60, 90, 100, 190, 200, 250]


def without_clock(result: dict[str, Any]) -> dict[str, Any]:
    methods = {name: {**m, "wall_seconds_per_pair": None} for name, m in result["methods"].items()}
    return {**result, "methods": methods}


def test_figures_by_hand(tmp_path: Path) -> None:
    judge, seen = Brightness(), []
    result = agree(PAIRS, {"bright": judge}, out=tmp_path, on_pair=lambda: seen.append(1), chunk=2)
    m = result["methods"]["bright"]
    assert len(seen) == 5 and result["pairs"] == 5 and result["tie_rule"] == "decided"
    assert result["baselines"] == {"always_tie": 0.0, "random": 0.5}
    assert m["accuracy"] == 3 / 4 and m["ci95"][0] <= 0.75 <= m["ci95"][1]
    assert m["tie_rate"] == 1 / 5 and m["failed"] == 0 and m["rules"]["labelled"] == 4 / 5
    assert m["by_task"] == {"add": {"accuracy": 1.0, "units": 3}, "remove": {"accuracy": 0.0, "units": 1}}
    assert sorted(judge.asked) == EDITS
    assert m["tokens_per_pair"] == sum(judge.asked) / 5 and m["seconds_per_pair"] == 8 * 0.25 / 5
    assert m["prompt"] == "p/1" and sum(m["distribution"]) == pytest.approx(1)
    assert result["reference"] == {"distribution": [0.5, 0, 0, 0, 0.5], "range": [0.0, 1.0]}
    assert json.loads((tmp_path / "agreement.json").read_text()) == result


def test_stopped_run_goes_on_and_ends_with_the_same_result(tmp_path: Path) -> None:
    whole = agree(PAIRS, {"m": Brightness(), "n": Brightness(100)}, out=tmp_path / "whole", chunk=2)
    out, first = tmp_path / "stopped", Brightness(dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        agree(PAIRS, {"m": first, "n": Brightness(100)}, out=out, chunk=2)
    with (out / "scores.jsonl").open("a") as file:
        file.write('{"method": "m", "pa')  # cut off by the kill
    again = Brightness()
    result = agree(PAIRS, {"m": again, "n": Brightness(100)}, out=out, chunk=2)
    assert without_clock(result) == without_clock(whole)
    whole = result
    assert sorted(first.asked + again.asked) == EDITS
    third = Brightness()
    assert agree(PAIRS, {"m": third, "n": Brightness(100)}, out=out) == whole and third.asked == []
    more = agree(PAIRS, {"o": Brightness()}, out=out)
    assert list(more["methods"]) == ["o"] and agree(PAIRS, {"m": third, "n": Brightness(100)}, out=out) == whole


def test_an_edit_with_other_references_is_judged_anew(tmp_path: Path) -> None:
    pairs = [pair("plain", "a"), pair("several", "a", references=(partial(grey, 9),)), pair("again", "a")]
    judge = Brightness()
    agree(pairs, {"m": judge}, out=tmp_path)
    assert sorted(judge.asked) == [100, 100, 200, 200]


def test_failed_pair_is_wrong_counted_with_its_reason_and_asked_again_later(tmp_path: Path) -> None:
    result = agree(PAIRS, {"m": Brightness(fails=(190, 50))}, out=tmp_path)
    m = result["methods"]["m"]
    assert (m["failed"], m["reasons"], m["accuracy"]) == (2, {"the answer is empty": 2}, 2 / 4)
    assert "counts as wrong" in result["failed_rule"]
    assert "2 × the answer is empty" in write_agreement_page(result, tmp_path).read_text()
    mended = Brightness()
    m = agree(PAIRS, {"m": mended}, out=tmp_path)["methods"]["m"]
    assert sorted(mended.asked) == [50, 190] and (m["failed"], m["accuracy"]) == (0, 3 / 4)


def test_judge_that_fails_always_has_a_page_and_no_made_up_number(tmp_path: Path) -> None:
    result = agree(PAIRS, {"m": Brightness(fails=tuple(range(256)))}, out=tmp_path)
    m = result["methods"]["m"]
    assert (m["accuracy"], m["failed"], m["tie_rate"], m["spearman"], m["calibration"]) == (0.0, 5, None, None, [])
    assert "No decided pair has two scores" in write_agreement_page(result, tmp_path).read_text()


def test_scores_of_other_pairs_or_another_judge_are_refused(tmp_path: Path) -> None:
    class Other(Brightness):
        pass

    agree(PAIRS, {"m": Brightness()}, out=tmp_path)
    for pairs, judge, setting in ((PAIRS[:3], Brightness(), "pairs"), (PAIRS, Other(), "judges")):
        with pytest.raises(UserError, match=f"scores.jsonl holds scores with {setting} .*, now it is"):
            agree(pairs, {"m": judge}, out=tmp_path)


def test_file_of_scores_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    for content in ("[3]\n", '{"pairs": 1}\n{"value": 1}\n', "no\n"):
        (tmp_path / "scores.jsonl").write_text(content)
        with pytest.raises(UserError, match=r"scores\.jsonl"):
            agree(PAIRS, {"m": Brightness()}, out=tmp_path)


def test_rule_is_official_exact_or_named(tmp_path: Path) -> None:
    genai = [pair(f"g{i}", "tie", (20, 20), layout="genai") for i in range(3)]
    shares = {rule: agree(genai, {"m": Brightness()}, rule=rule, out=tmp_path) for rule in ("official", "exact")}
    assert {r["tie_rule"]: r["methods"]["m"]["accuracy"] for r in shares.values()} == {
        "genai_official": 1.0, "genai_exact": 0.0,
    }  # fmt: skip
    decided = agree(genai, {"m": Brightness()}, rule="decided", out=tmp_path)
    assert decided["methods"]["m"]["accuracy"] is None and decided["methods"]["m"]["ci95"] is None
    assert agree(PAIRS, {"m": Brightness()}, rule="exact", out=tmp_path / "own")["tie_rule"] == "decided"
    with pytest.raises(UserError, match=r"--rule best: .* official, exact, genai_official"):
        agree(genai, {"m": Brightness()}, rule="best", out=tmp_path)
    with pytest.raises(UserError, match="at least one pair"):
        agree([], {"m": Brightness()}, out=tmp_path)


def test_page_stands_alone_and_the_table_shows_the_figures(tmp_path: Path) -> None:
    dimensions = [pair(f"e{i}", "a", (200, i), dimension="overall", task="<b>", layout="editscore") for i in range(9)]
    result = agree(dimensions, {"m": Brightness(), "n": Brightness(100)}, out=tmp_path)
    text = write_agreement_page(result, tmp_path).read_text()
    targets = re.findall(r"""(?:src|href|url|action|srcset)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    assert targets and all(target.startswith("data:") for target in targets)
    assert not re.search(r"https?://|<script|@import|//cdn|<b>\s*</th", text) and "&lt;b&gt;" in text
    drawn = ["Scores of m", "Scores of n", "Calibration of m", "Calibration of n"]
    assert (
        re.findall(r'<svg class="chart"[^>]* aria-label="([^"]*)"', text) == drawn
        and "By what people were asked about" in text
    )
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(agreement_table(result))
    assert re.search(r"m .*100\.0 .*always tie .*0\.0", console.export_text(), re.S)


@needs_chromium
def test_browser_shows_the_page_without_a_complaint(tmp_path: Path) -> None:
    written = write_agreement_page(agree(PAIRS, {"bright": Brightness()}, out=tmp_path), tmp_path)
    dom, log = browse(written, tmp_path / "profile", "--dump-dom")
    assert "75.0" in dom and "By task type" in dom and "CONSOLE" not in log


def test_toy_pairs_are_the_same_for_ever_and_balanced() -> None:
    pairs = toy_pairs(18)
    digest = hashlib.sha256()
    for one in pairs[:4]:
        for opener in (one.source, one.edit_a, one.edit_b):
            digest.update(opener().tobytes())
        digest.update(f"{one.instruction}|{one.preference}|{one.score_a:.6f}|{one.score_b:.6f}".encode())
    assert digest.hexdigest()[:16] == "2af3fd7d49bb6b91"
    tasks = [one.task for one in pairs]
    assert len(set(tasks)) == 9 and all(tasks.count(task) == 2 for task in tasks)
    for one in toy_pairs(60, seed=1):
        assert one.score_a is not None and one.score_b is not None
        apart = one.score_a - one.score_b
        assert one.preference == ("tie" if abs(apart) < 0.05 else "a" if apart > 0 else "b")
    other = toy_pairs(1, seed=1)[0]
    assert other.source() != pairs[0].source() and other.key != pairs[0].key
