"""The picture of edits that fool a judge: which ones it shows, and that it shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Images

from editr1.errors import UserError
from editr1.evaluation.heldout.rows import EditRow

SCRIPTS = Path(__file__).parents[2] / "scripts"


def row(key: str, judge: float | None, oracle: float) -> EditRow:
    return EditRow(key, "add", 0, "Add a pear.", judge, None, {"score": oracle}, f"{key}_0.png")


def test_edits_that_the_judge_likes_more_than_the_oracle_does_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from fooled_figure import fooled

    before = [row("a", 0.5, 0.5), row("b", 0.2, 0.6), row("c", 0.5, 0.5), row("d", None, 0.5), row("e", 0.5, 0.5)]
    after = [row("a", 0.7, 0.6), row("b", 0.8, 0.1), row("c", 0.6, 0.9), row("d", 0.9, 0.1), row("f", 0.9, 0.1)]
    assert [old.key for old, _ in fooled(before, after)] == ["b", "a"]
    with pytest.raises(UserError, match="no edit is in both folders with the scores of judge and oracle"):
        fooled(before[:2], after[2:])
