"""Which items a step draws, and in how many rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from editr1.config.settings import RolloutConfig
from editr1.data.samples import GroupSampler
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from editr1.report.run import write_report
from editr1.report.watch.view import facts
from editr1.training.collecting import count_missing
from tests.training.runs import Make, RedJudge, assert_same_run, settings

PAPER = {"algorithm__filter": "paper", "algorithm__tau_sigma": 0.01}


class FlatItems(RedJudge):
    """All edits of some items are equally good; `keys` is what was asked."""

    def __init__(self, *items: int) -> None:
        super().__init__()
        self.flat, self.keys = {f"item-{item}" for item in items}, list[str]()

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        self.keys.append(requests[0].sample.key)
        return [Score(0.95)] * len(requests) if self.keys[-1] in self.flat else super().score(requests)


class Kept:
    def __init__(self, dropped: str | None) -> None:
        self.dropped = dropped


@pytest.mark.parametrize(
    ("kept", "dropped", "most", "missing"),
    [(3, 1, None, 0), (3, 1, 8, 1), (4, 0, 8, 0), (0, 4, 8, 4), (1, 6, 8, 1), (0, 8, 8, 0), (1, 3, 5, 1)],
)
def test_as_many_groups_are_drawn_as_are_missing_up_to_the_bound(
    kept: int, dropped: int, most: int | None, missing: int
) -> None:
    judged: Any = [Kept(None)] * kept + [Kept("high")] * dropped
    assert count_missing(judged, RolloutConfig(groups_per_step=4, most_groups=most)) == missing


def test_other_items_replace_dropped_groups_in_the_order_of_the_epochs(make: Make) -> None:
    judge = FlatItems(1, 3)
    trainer = make(judge=judge, rollout__most_groups=9, steps=5, **PAPER)
    trainer.train()
    rows = read_lines(trainer.out / "metrics.jsonl")
    order = [f"item-{item}" for item in GroupSampler(5, 2, 0).draw(0, count=len(judge.keys))[0]]
    assert judge.keys == order and trainer.collector.place == len(order)
    kept = [key not in judge.flat for key in order]
    ends = [0]
    for row in rows:  # a step ends with the second group that is kept
        drawn = row["groups_kept"] + sum(row["dropped"].values())
        part = kept[ends[-1] : ends[-1] + drawn]
        assert (row["groups_kept"], sum(part), part[-1]) == (2, 2, True)
        assert row["dropped"] == ({"agree_and_high": drawn - 2} if drawn > 2 else {})
        ends.append(ends[-1] + drawn)
    assert ends[-1] == len(order) and max(row["dropped"].get("agree_and_high", 0) for row in rows) > 0


def test_a_step_ends_at_the_bound_though_nothing_is_kept(make: Make) -> None:
    judge = FlatItems(*range(5))
    trainer = make(judge=judge, rollout__most_groups=5, steps=2, **PAPER)
    trainer.train()
    rows = read_lines(trainer.out / "metrics.jsonl")
    assert [row["dropped"] for row in rows] == [{"agree_and_high": 5}] * 2 and len(judge.keys) == 10


def test_a_run_with_other_items_goes_on_exactly_after_a_stop_also_with_bans(make: Make, tmp_path: Path) -> None:
    judge, one, two = (FlatItems(1, 3) for _ in range(3))
    more = {**PAPER, "rollout__most_groups": 7, "data__ban_solved": True, "algorithm__std": "global"}
    make("whole", judge, steps=4, **more).train()
    make("parts", one, steps=2, **more).train()
    make("parts", two, steps=4, **more).train()
    assert one.keys + two.keys == judge.keys and len(judge.keys) == 10  # both solved items once, then never
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_where_no_group_is_dropped_none_is_drawn_more(make: Make, tmp_path: Path) -> None:
    make("plain", steps=2).train()
    make("more", steps=2, rollout__most_groups=8).train()
    assert_same_run(tmp_path / "plain", tmp_path / "more")


def test_a_bound_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"most_groups=4 leaves none .* more than rollout\.groups_per_step=4, or"):
        RolloutConfig(groups_per_step=4, most_groups=4)


def test_training_ends_when_all_items_are_solved_says_so_and_begins_no_step_again(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {**PAPER, "data__ban_solved": True, "rollout__groups_per_step": 3, "steps": 9}
    for _ in range(2):
        judge = FlatItems(*range(5))
        trainer = make(judge=judge, **changes)
        last = trainer.train()
        said = capsys.readouterr().err
        assert last.name == "step_000002" and trainer.step == 2 and trainer.collector.all_solved
        assert "Training is done: all 5 items are solved" in said
    assert judge.keys == []
    rows = read_lines(tmp_path / "out" / "metrics.jsonl")
    assert [row["banned"] for row in rows] == [3, 5]
    assert facts(rows[-1])["Solved items"] == "5, not drawn again"
    assert "Solved items, which are not drawn again: 5." in write_report(trainer.out).read_text()


def test_bans_by_a_judge_that_ranks_a_group_alone_are_refused() -> None:
    changes = {"judge": {"path": "red", "method": "ranking"}, "data__ban_solved": True}
    with pytest.raises(
        ValidationError, match=r"never finds a solved item by judge\.method=ranking.* set it to false, or"
    ):
        settings(**changes)
    assert settings(**changes, algorithm__tau_mu=0.4).data.ban_solved
    assert settings(**changes, rewards={"copy": {"kind": "preservation"}}).data.ban_solved


def test_the_console_counts_solved_items(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make(judge=FlatItems(*range(5)), steps=1, data__ban_solved=True, **PAPER).train()
    assert "0/2 groups kept, 2 items solved" in capsys.readouterr().err
