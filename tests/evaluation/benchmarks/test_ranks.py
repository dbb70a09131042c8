"""Ranks share the items of a benchmark: edits, choices and answers are those of one process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

import pytest
import torch

from editr1.errors import UserError
from editr1.evaluation.benchmarks import edits
from editr1.evaluation.benchmarks.edits import EditSettings, choose, make_edits, missing
from editr1.evaluation.benchmarks.flight import shared
from editr1.evaluation.benchmarks.imgedit import ImgEdit
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from editr1.training.distributed import ALONE, World
from tests.evaluation.benchmarks.folders import imgedit_folder
from tests.evaluation.heldout.test_measure import Painter as Plain
from tests.evaluation.heldout.test_measure import red
from tests.evaluation.ranks import together

SETTINGS = EditSettings(editor="toy", steps=4, best_of=2)


class Painter(Plain):
    """Paints noise over the source."""

    def rollout(self, sample: Any, num_edits: int, **options: Any) -> Any:
        toy = type(sample)("toy/small/heldout/0/0", sample.source, sample.instruction)
        return super().rollout(toy, num_edits, **options)


class Red:
    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        return [Score(red(request.edit)) for request in requests]


def pictures(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(edits, "open_editor", lambda *_: Painter(0.3))
    return imgedit_folder(tmp_path / "data", items=7)


@pytest.mark.parametrize("ranks", [2, 3, 9])
def test_edits_and_choices_of_several_ranks_are_those_of_one_process(ranks: int, data: Path, tmp_path: Path) -> None:
    def work(out: Path, world: World) -> int:
        done: list[int] = []
        count = partial(done.append, 1)
        assert make_edits(partial(ImgEdit, data), SETTINGS, out, on_item=count, world=world) == {}
        assert choose(ImgEdit(data).items, Red(), SETTINGS, out, on_item=count, world=world) == {}
        assert all((out / item.edit_file).is_file() for item in ImgEdit(data).items)  # the next stage reads them all
        return len(done)

    assert together(ranks, partial(work, tmp_path / "several")) == [14] * ranks  # the progress of all
    assert work(tmp_path / "one", ALONE) == 14
    assert pictures(tmp_path / "several") == pictures(tmp_path / "one")
    assert read_lines(tmp_path / "several/picks.jsonl") == read_lines(tmp_path / "one/picks.jsonl")


def test_every_rank_knows_why_another_rank_made_no_edit(data: Path, tmp_path: Path) -> None:
    broken = ImgEdit(data).items[3]
    next(data.rglob("000000003.png")).write_bytes(b"no picture")
    work = partial(make_edits, partial(ImgEdit, data), SETTINGS, tmp_path / "out")
    failed = together(2, lambda world: work(world=world))
    assert failed[0] == failed[1] and [*failed[0]] == [broken.key]
    assert [item.key for item in missing(ImgEdit(data).items, SETTINGS, tmp_path / "out")] == [broken.key]


def test_a_fault_of_one_rank_ends_all_and_finished_edits_stay(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Painter):
        def rollout(self, sample: Any, num_edits: int, **options: Any) -> Any:
            if self.seeds:
                raise torch.OutOfMemoryError("full")
            return super().rollout(sample, num_edits, **options)

    painters = iter([Painter(0.3), Failing(0.3)])
    monkeypatch.setattr(edits, "open_editor", lambda *_: next(painters))
    work = partial(make_edits, partial(ImgEdit, data), SETTINGS, tmp_path)
    with pytest.raises((UserError, BrokenBarrierError), match=r"no memory left for \d+: take fewer|^$"):
        together(2, lambda world: work(world=world))
    left = missing(ImgEdit(data).items, SETTINGS, tmp_path)
    assert len(left) in (4, 5)  # a round of both was finished, and the first rank's next edit


@pytest.mark.parametrize("jobs", [0, 1, 5, 23])
@pytest.mark.parametrize("width", [1, 3])
def test_every_job_is_done_once_and_every_rank_has_all_results_in_order(jobs: int, width: int) -> None:
    done: list[int] = []

    def square(job: int) -> int:
        done.append(job)
        return job * job

    def work(world: World) -> list[int]:
        return [*shared(range(jobs), square, width, world)]

    assert together(4, work) == [[job * job for job in range(jobs)]] * 4
    assert sorted(done) == [*range(jobs)]
