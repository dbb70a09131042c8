"""The figures of docs/method.md show what the formulas say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from editr1.algorithms.nft import NFT

ROOT = Path(__file__).parents[2]
FIGURES: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "method_figures.py"))


@pytest.mark.parametrize("advantage", [-7.0, -5.0, -1.0, 0.0, 0.5, 5.0, 9.0])
def test_the_pull_is_that_of_the_closed_form(advantage: float) -> None:
    # plain form at v = v_old: dL/dv = -2 A_max (2 r - 1) (target - v) = -2 clip(A) (target - v)
    expected = 2 * max(-5.0, min(5.0, advantage))
    assert FIGURES["pull"](advantage, NFT(form="velocity")) == pytest.approx(expected, rel=1e-6)
    assert FIGURES["pull"](advantage, NFT()) == pytest.approx(expected, rel=1e-6)  # w = 1 here


@pytest.mark.parametrize(
    ("mean", "std", "paper", "released"),
    [
        (0.95, 0.02, True, True),
        (0.95, 0.04, True, True),
        (0.75, 0.02, False, True),
        (0.92, 0.07, False, True),
        (0.75, 0.1, False, False),
    ],
)
def test_the_dropped_groups_are_those_of_the_two_rules(mean: float, std: float, paper: bool, released: bool) -> None:
    assert FIGURES["is_dropped"](mean, std, "paper") == paper
    assert FIGURES["is_dropped"](mean, std, "released") == released


def test_every_figure_of_the_docs_is_shown_by_a_page() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"figures/([\w.]+)\)", page.read_text(encoding="utf-8"))}
    assert shown == {path.name for path in (ROOT / "docs" / "figures").iterdir()}


def test_the_page_shows_what_the_script_draws(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    assert "(figures/rules.svg)" in page
    FIGURES["draw_rules"](tmp_path / "rules.svg")
    words = re.compile(r">([A-Z][\w ]+)<")
    drawn, kept = ((folder / "rules.svg").read_text() for folder in (tmp_path, ROOT / "docs" / "figures"))
    assert words.findall(drawn) == words.findall(kept) != []
