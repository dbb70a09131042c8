"""Evaluation with stand-ins for editor and judge, the real toy world and the real oracle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest
from PIL import Image as Images
from PIL.Image import Image

from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits, toy_oracle
from editr1.evaluation.heldout.outside import CHUNK
from editr1.evaluation.heldout.rows import EditRow, image_name, move_aside, open_image, read_rows
from editr1.judges.base import JudgeRequest, Score
from editr1.toy.scene import draw, to_image
from editr1.toy.world import ToyDataset, item_from_key

SETTINGS = EvalSettings(weights="base", steps=4)
ITEMS = 20


@dataclass
class Painter:
    """An "editor" that returns the target under noise of strength `noise`, drawn from (seed, i)."""

    is_sharded = False
    noise: float = 0.0
    seeds: list[int] = field(default_factory=list)

    def rollout(self, sample: EditSample, num_edits: int, *, steps: int, seed: int, scheduler: str) -> Any:
        assert (steps, scheduler) == (4, "euler")
        self.seeds.append(seed)
        target = np.asarray(to_image(draw(item_from_key(sample.key).edit.target)), float)
        images = []
        for i in range(num_edits):
            noise = np.random.default_rng([seed, i]).normal(0, 255 * self.noise, target.shape)
            images.append(Images.fromarray(np.clip(target + noise, 0, 255).astype(np.uint8)))
        return SimpleNamespace(images=images)


@dataclass
class Grader:
    """A "judge" whose score is the red of the edit's first pixel; it can be stopped at a batch, or abstain."""

    stop_at: int | None = None
    silent: str = ""
    batches: int = 0
    remote: bool = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        if self.batches == self.stop_at:
            raise KeyboardInterrupt
        self.batches += 1
        return [Score(None, "abstains") if r.sample.task == self.silent else Score(red(r.edit)) for r in requests]


def red(image: Image) -> float:
    return float(np.asarray(image)[0, 0, 0]) / 255


def measure(painter: Any, judge: Grader, dataset: ToyDataset, **settings: Any) -> list[EditRow]:
    """`measure_edits` with the toy's oracle; it knows no `Painter`."""
    return measure_edits(painter, judge, dataset, **{"oracle": toy_oracle, **settings})


def heldout(size: int = ITEMS) -> ToyDataset:
    return ToyDataset("heldout", size)


def test_right_edits_score_one_and_each_item_has_its_rows_in_order(tmp_path: Path) -> None:
    rows = measure(Painter(), Grader(), heldout(), out=tmp_path, settings=SETTINGS)
    assert [(row.key, row.index) for row in rows] == [
        (s.key, i) for s in map(heldout().__getitem__, range(ITEMS)) for i in (0, 1)
    ]
    assert [row.oracle["score"] for row in rows] == pytest.approx([1.0] * 2 * ITEMS, abs=1e-3)
    assert len({row.task for row in rows}) == 9
    head, first, *_ = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert list(head) == ["weights", "steps", "scheduler", "seeds", "noise_seed", "items"]
    assert list(first) == ["key", "task", "seed", "instruction", "judge", "reason", "oracle", "image"]


def test_noisier_edits_score_less_and_rows_name_the_picture_that_was_measured(tmp_path: Path) -> None:
    noisy = measure(Painter(0.5), Grader(), heldout(), out=tmp_path, settings=SETTINGS)
    assert np.mean([row.oracle["score"] for row in noisy]) < 0.5
    for row in noisy:
        assert row.judge == pytest.approx(red(open_image(tmp_path, row.image)))
        assert np.array_equal(
            np.asarray(open_image(tmp_path, row.source)), np.asarray(heldout()[int(row.key.split("/")[-1])].source)
        )
    assert read_rows(tmp_path) == noisy


def test_noise_is_the_same_in_two_evaluations_and_another_for_every_item(tmp_path: Path) -> None:
    first, second = Painter(), Painter()
    measure(first, Grader(), heldout(), out=tmp_path / "a", settings=SETTINGS)
    measure(second, Grader(), heldout(), out=tmp_path / "b", settings=SETTINGS)
    assert first.seeds == second.seeds
    assert len(set(first.seeds)) == ITEMS


def test_no_more_pictures_are_held_than_those_of_a_chunk(tmp_path: Path) -> None:
    pictures: list[ref[Image]] = []

    class Photos(ToyDataset):
        def __getitem__(self, index: int) -> EditSample:
            sample = super().__getitem__(index)
            pictures.append(ref(sample.source))
            return sample

    class Counting(Grader):
        def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
            held.append(sum(picture() is not None for picture in pictures))
            return super().score(requests)

    held: list[int] = []
    measure(Painter(), Counting(), Photos("heldout", ITEMS), out=tmp_path, settings=SETTINGS)
    assert len(held) == 3 and max(held) <= 2 * CHUNK < ITEMS  # those of the chunk before, while it is replaced


def test_stopped_evaluation_goes_on_without_repeating_an_item_and_ends_the_same(tmp_path: Path) -> None:
    whole = measure(Painter(0.1), Grader(), heldout(), out=tmp_path / "whole", settings=SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        measure(Painter(0.1), Grader(stop_at=2), heldout(), out=tmp_path / "part", settings=SETTINGS)
    path = tmp_path / "part/rows.jsonl"
    path.write_text(path.read_text() + '{"key": "toy/small/he')  # killed while writing, too
    painter, told = Painter(0.1), list[int]()
    rows = measure(painter, Grader(), heldout(), out=tmp_path / "part", settings=SETTINGS, on_items=told.append)
    assert rows == whole
    assert len(painter.seeds) == ITEMS - 2 * CHUNK
    assert told[0] == 2 * CHUNK and sum(told) == ITEMS
    again = Painter(0.1)
    assert measure(again, Grader(), heldout(), out=tmp_path / "part", settings=SETTINGS) == whole
    assert again.seeds == []


def test_item_of_which_one_edit_is_missing_is_made_again(tmp_path: Path) -> None:
    whole = measure(Painter(), Grader(), heldout(3), out=tmp_path, settings=SETTINGS)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(path.read_text().split("\n")[:-2]) + "\n")
    painter = Painter()
    assert measure(painter, Grader(), heldout(3), out=tmp_path, settings=SETTINGS) == whole
    assert len(painter.seeds) == 1


@pytest.mark.parametrize(
    ("other", "size", "difference"),
    [
        (EvalSettings(weights="step_10", steps=4), 3, "weights 'base', now it is 'step_10'"),
        (EvalSettings(weights="base", steps=4, noise_seed=1), 3, "noise_seed 0, now it is 1"),
        (SETTINGS, 4, "other items"),
    ],
)
def test_rows_of_other_settings_are_refused_and_kept(
    tmp_path: Path, other: EvalSettings, size: int, difference: str
) -> None:
    measure(Painter(0.5), Grader(), heldout(3), out=tmp_path, settings=SETTINGS)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=f"rows.jsonl holds edits with {difference}: give another folder"):
        measure(Painter(), Grader(), heldout(size), out=tmp_path, settings=other)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_rows_of_other_weights_move_aside_and_the_new_ones_are_measured_anew(tmp_path: Path) -> None:
    out, new = tmp_path / "after", EvalSettings(weights="step_10", steps=4)
    assert move_aside(out, "base") is None
    for place in ("base", "base.2"):
        old = measure(Painter(0.5), Grader(), heldout(3), out=out, settings=SETTINGS)
        assert move_aside(out, "base") is None
        assert move_aside(out, "step_10") == tmp_path / place
        assert read_rows(tmp_path / place) == old and not out.exists()
    rows = measure(Painter(), Grader(), heldout(3), out=out, settings=new)
    assert [row.oracle["score"] for row in rows] == pytest.approx([1.0] * 6, abs=1e-3)


def test_edit_without_a_reward_keeps_none_and_the_reason_and_its_oracle_score(tmp_path: Path) -> None:
    rows = measure(Painter(), Grader(silent="add"), heldout(), out=tmp_path, settings=SETTINGS)
    silent = [row for row in rows if row.task == "add"]
    assert silent and {(row.judge, row.reason) for row in silent} == {(None, "abstains")}
    assert min(row.oracle["score"] for row in silent) > 0.999
    assert all(row.judge is not None for row in rows if row.task != "add")


def test_items_whose_edits_got_no_reward_are_judged_when_the_evaluation_is_run_again(tmp_path: Path) -> None:
    whole = measure(Painter(0.1), Grader(), heldout(9), out=tmp_path / "whole", settings=SETTINGS)
    measure(Painter(0.1), Grader(silent="add"), heldout(9), out=tmp_path / "part", settings=SETTINGS)
    painter = Painter(0.1)
    assert measure(painter, Grader(), heldout(9), out=tmp_path / "part", settings=SETTINGS) == whole
    assert len(painter.seeds) == sum(row.task == "add" for row in whole) / 2


def test_without_an_oracle_rows_hold_the_judges_reward_alone(tmp_path: Path) -> None:
    rows = measure(Painter(), Grader(), heldout(3), out=tmp_path, settings=SETTINGS, oracle=None)
    assert [row.oracle for row in rows] == [{}] * 6 and all(row.judge is not None for row in rows)
    assert read_rows(tmp_path) == rows


def test_rows_made_with_other_settings_of_the_run_are_refused(tmp_path: Path) -> None:
    made = EvalSettings(weights="base", steps=4, made_with={"judge.path": "a"})
    measure(Painter(), Grader(), heldout(3), out=tmp_path, settings=made)
    other = EvalSettings(weights="base", steps=4, made_with={"judge.path": "b"})
    with pytest.raises(UserError, match=r"edits with judge.path 'a', now it is 'b'"):
        measure(Painter(), Grader(), heldout(3), out=tmp_path, settings=other)


def test_no_two_keys_share_a_picture_and_none_leaves_the_folder() -> None:
    keys = ["a/b", "a-b", "a b", "../../x", "x" * 300, "x" * 300 + "y", "toy/small/heldout/0/1", "über"]
    names = [image_name(key, 0) for key in keys]
    assert len({*names}) == len(names) and all("/" not in name and len(name) < 200 for name in names)
    assert image_name("toy/small/heldout/0/1", 0) == "toy+small+heldout+0+1_0.png"
