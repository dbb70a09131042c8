"""The second judge sees a fixed part of the edits; what it says changes nothing but the row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from editr1.config.loading import load_config
from editr1.data.samples import EditSample
from editr1.editors.editor import Rollout
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from editr1.training.checkpoint import changed_settings
from editr1.training.group import Group
from editr1.training.open import open_trainer
from editr1.training.watching import watch_by
from tests.training.kills import TINY

SECOND = "watch={judge: {path: 'toy:judge', template: full}, every: 2}"


class Reds:
    """A judge whose score is an edit's red value / 255; it has none for black."""

    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        reds = [request.edit.tobytes()[0] for request in requests]
        return [Score(red / 255) if red else Score(None, reason="black\x1b[2J") for red in reds]


def group(reds: Sequence[int], first: int = 0) -> Group:
    images = [Image.new("RGB", (4, 4), (red, 0, 0)) for red in reds]
    nothing: Conditioning = None  # type: ignore[assignment]  # judging looks at pictures alone
    rollout = Rollout(nothing, torch.zeros(len(reds), 1, 1), images, torch.ones(1), [])
    return Group(0, EditSample("an item", images[0], "edit"), rollout, first=first)


def test_every_nth_edit_is_scored_by_its_place_in_the_whole_group() -> None:
    watch = watch_by(Reds(), 3)
    whole = watch(group([51, 1, 2, 102, 3, 4, 153]))
    assert whole == {"judge": [0.2, 0.4, 0.6]}
    parts = [watch(group([51, 1], 0)), watch(group([2, 102, 3], 2)), watch(group([4, 153], 5))]
    assert [score for part in parts for score in part["judge"]] == whole["judge"]
    assert watch(group([1, 2], first=1)) == {"judge": []}


def test_an_edit_without_a_score_is_left_out_and_told_without_its_control_characters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert watch_by(Reds(), 1)(group([0, 51, 0])) == {"judge": [0.2]}
    assert len(caplog.messages) == 1
    assert "no score of an edit of item an item: black" in caplog.text and "\x1b" not in caplog.text


def test_training_with_a_second_judge_is_training_without_it_and_its_mean_is_in_the_rows(tmp_path: Path) -> None:
    weights, rows = [], []
    for name, more in (("with", [SECOND]), ("without", [])):
        config = load_config(TINY[0], [*TINY[1:], *more, "steps=2", f"out={tmp_path / name}", "trackers=[]"])
        trainer = open_trainer(config)
        trainer.train()
        weights.append(torch.cat([param.detach().flatten() for param in trainer.params]))
        rows.append(read_lines(tmp_path / name / "metrics.jsonl"))
    assert torch.equal(*weights)
    assert all(0 < row["watched"]["judge"] < 1 for row in rows[0])
    assert not any("watched" in row for row in rows[1])


def test_it_may_be_added_and_changed_when_a_run_is_continued() -> None:
    plain, watched = load_config("toy"), load_config("toy", [SECOND])
    assert changed_settings(plain.model_dump(mode="json"), watched) == ""
    assert changed_settings(watched.model_dump(mode="json"), plain) == ""


def test_a_judge_that_compares_edits_is_refused() -> None:
    with pytest.raises(UserError, match=r"watch\.judge\.method=\"ranking\" compares"):
        load_config("toy", ["watch={judge: {path: 'toy:judge', method: ranking}}"])
