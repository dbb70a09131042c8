"""Ranks share the items of an evaluation: rows and pictures are those of one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

import pytest

from editr1.evaluation.heldout.rows import EditRow
from editr1.judges.base import JudgeRequest, Score
from editr1.training.distributed import World
from tests.evaluation.heldout.test_measure import SETTINGS, Grader, Painter, heldout, measure
from tests.evaluation.ranks import together


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def alone(out: Path, items: int, **options: Any) -> list[EditRow]:
    return measure(Painter(0.2), Grader(), heldout(items), out=out, settings=SETTINGS, **options)


@pytest.mark.parametrize(("ranks", "items"), [(2, 20), (4, 33), (3, 1)])
def test_rows_and_pictures_of_several_ranks_are_those_of_one_process(ranks: int, items: int, tmp_path: Path) -> None:
    shown: list[list[int]] = [[] for _ in range(ranks)]

    def work(world: World) -> list[EditRow]:
        out, seen = tmp_path / "several", shown[world.rank].append
        return measure(Painter(0.2), Grader(), heldout(items), out=out, settings=SETTINGS, world=world, on_items=seen)

    rows = alone(tmp_path / "one", items)
    assert together(ranks, work) == [rows] * ranks
    assert contents(tmp_path / "several") == contents(tmp_path / "one")
    assert all(sum(counts) == items for counts in shown)  # every rank's progress is that of all


@pytest.mark.parametrize("items", [1, 9, 20])
def test_ranks_that_share_the_weights_make_equally_many_calls_and_the_same_rows(items: int, tmp_path: Path) -> None:
    class Sharded(Painter):
        is_sharded = True

    painters = [Sharded(0.2) for _ in range(3)]

    def work(world: World) -> list[EditRow]:
        editor, out = painters[world.rank], tmp_path / "several"
        return measure(editor, Grader(), heldout(items), out=out, settings=SETTINGS, world=world, oracle=None)

    assert together(3, work) == [alone(tmp_path / "one", items, oracle=None)] * 3
    assert len({len(painter.seeds) for painter in painters}) == 1
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


def test_a_rank_that_has_no_item_asks_its_judge_nothing(tmp_path: Path) -> None:
    class Strict(Grader):
        def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
            assert requests
            return super().score(requests)

    def work(world: World) -> int:
        return len(measure(Painter(), Strict(), heldout(3), out=tmp_path, settings=SETTINGS, world=world))

    assert together(2, work) == [6, 6]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_what_was_finished_stays_when_a_rank_fails_and_another_number_of_ranks_goes_on(
    before: int, after: int, tmp_path: Path
) -> None:
    out, items = tmp_path / "several", 34

    def work(world: World, stop_at: int | None = None) -> int:
        editor = Painter(0.2)
        grader = Grader(stop_at=stop_at if world.rank == world.size - 1 else None)
        measure(editor, grader, heldout(items), out=out, settings=SETTINGS, world=world, oracle=None)
        return len(editor.seeds)

    with pytest.raises((KeyboardInterrupt, BrokenBarrierError)):
        together(before, lambda world: work(world, stop_at=1))
    assert sum(together(after, work)) == items - 8 * before  # one turn of every rank was written
    assert alone(out, items, oracle=None) == alone(tmp_path / "one", items, oracle=None)
    assert sorted(contents(out)) == sorted(contents(tmp_path / "one"))
