"""The picture of edits that fool a judge: which ones it shows, in which order, and that it is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Images

from editr1.errors import UserError
from editr1.evaluation.heldout.rows import EditRow
from tests.report.synthetic import write_demo

SCRIPTS = Path(__file__).parents[2] / "scripts"


def row(key: str, judge: float | None, oracle: float) -> EditRow:
    return EditRow(key, "add", 0, "Add a pear.", judge, None, {"score": oracle}, f"{key}_0.png")


def test_edits_that_the_judge_likes_more_than_the_oracle_does_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from fooled_figure import fooled

    before = [row("a", 0.5, 0.5), row("b", 0.2, 0.6), row("c", 0.5, 0.5), row("d", None, 0.5), row("e", 0.5, 0.5)]
    after = [row("a", 0.7, 0.6), row("b", 0.8, 0.1), row("c", 0.6, 0.9), row("d", 0.9, 0.1), row("f", 0.9, 0.1)]
    assert [pair.before.key for pair in fooled(before, after)] == ["b", "a"]
    with pytest.raises(UserError, match="no edit is in both folders with the scores of judge and oracle"):
        fooled(before[:2], after[2:])
    with pytest.raises(UserError, match="of no edit has the judge's score risen more than the oracle's"):
        fooled(before[2:3], after[2:3])


def test_the_picture_of_a_demo_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from fooled_figure import draw_figure

    write_demo(tmp_path / "run")
    folder = tmp_path / "run/evaluation"
    draw_figure(folder / "before", folder / "after", tmp_path / "fooled.png")
    with Images.open(tmp_path / "fooled.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (616, 1100)
    assert (np.abs(pixels - [200, 185, 240]).max(-1) < 35).mean() > 0.1  # ground of the synthetic scenes
