"""A run of two ranks as `editr1 watch` and W&B see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.files import read_lines
from editr1.report.watch.following import Followed
from editr1.report.watch.view import card, groups_of
from tests.cli.test_torchrun import SIZES
from tests.ranks import torchrun
from tests.training.tracked import wandb_rows


@pytest.mark.long
def test_watch_shows_the_edits_and_seconds_of_both_ranks_and_one_of_them_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    out = tmp_path / "out"
    tracked = ("trackers=[wandb, tensorboard]", "steps=1")
    done = torchrun(2, "editr1", "train", "toy", *SIZES, *tracked, f"out={out}")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_lines(out / "metrics.jsonl")
    assert [row["_step"] for _, row in wandb_rows(out)] == [1]
    assert len([*out.glob("wandb/offline-run-*")]) == len([*out.glob("tb/events*")]) == 1
    run = Followed(out)
    shown = card(run)
    assert (shown["step"], shown["fault"], shown["left"]) == (1, "", "all steps are done")
    assert [*shown["ranks"]] == ["0", "1"]
    for part, spent in rows[-1]["seconds"].items():
        if part in ("rollout", "judge"):  # the slowest rank's
            assert max(rank[part] for rank in shown["ranks"].values()) == pytest.approx(spent)
    assert run.samples is not None and run.samples["step"] == 1
    groups = groups_of(run)
    assert [len(group["edits"]) for group in groups] == [5, 5, 5]
    rewards = [reward for group in groups for reward, _ in group["edits"]]
    assert sum(rewards) / 15 == pytest.approx(rows[-1]["reward_mean"])
