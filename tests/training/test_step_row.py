import json
import math
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from editr1.config.watching import KeptConfig
from editr1.data.masks import outlined
from editr1.data.samples import EditSample
from editr1.editors.editor import Rollout
from editr1.editors.recorder import Conditioning
from editr1.files import read_lines
from editr1.preservation.region import derive_mask
from editr1.training.grid import places, sample_grid, strip_of
from editr1.training.group import Group
from editr1.training.log import RunLog, StepProgress, Stopwatch
from editr1.training.step_row import GroupMeasures, edit_statistics, look, measure, reward_statistics, step_row

GREY, RED = (128, 128, 128), (255, 0, 0)


def group(
    rewards: list[float], task: str = "add", dropped: str | None = None, colour: tuple[int, int, int] = GREY
) -> Group:
    size = (8, 8)
    sample = EditSample("k", Image.new("RGB", size, GREY), "add a cat", task=task)
    images = [Image.new("RGB", size, colour) for _ in rewards]
    latents = torch.full((len(rewards), 2, 3), 2.0)
    nothing: Conditioning = None  # type: ignore[assignment]  # measures look at pictures and latents alone
    rollout = Rollout(nothing, latents, images, torch.ones(1), [])
    reasons = ["slow" if math.isnan(reward) else None for reward in rewards]
    return Group(0, sample, rollout, rewards=torch.tensor(rewards), reasons=reasons, dropped=dropped)


def measures(*groups: Group) -> list[GroupMeasures]:
    return [measure(group) for group in groups]


def test_reward_statistics_have_the_values_of_numpy() -> None:
    nan = math.nan
    groups = [group([0.0, 0.5, 1.0]), group([0.2, 0.4, nan], "remove"), group([nan] * 3, "style", "no_reward")]
    row = reward_statistics(measures(*groups))
    every = [0.0, 0.5, 1.0, 0.2, 0.4]
    assert row["reward_mean"] == pytest.approx(np.mean(every))
    assert row["reward_std_all"] == pytest.approx(np.std(every))
    assert row["reward_std_within"] == pytest.approx((np.std([0, 0.5, 1]) + 0.1) / 2)
    assert row["reward_by_task"] == {"add": 0.5, "remove": pytest.approx(0.3), "style": None}
    assert row["unscored"] == 4


def test_every_mixed_reward_counts_its_own_missing_edits_and_reasons() -> None:
    one, two = group([0.5, 0.7, 0.9]), group([0.5])
    one.parts = {"judge": torch.tensor([0.5, math.nan, math.nan]), "own": torch.tensor([0.5, 0.7, 0.9])}
    one.parts_reasons = {"judge": [None, "HTTP 503", "HTTP 503"], "own": [None] * 3}
    row = reward_statistics(measures(one, two))  # the second group was asked about neither
    assert row["unscored"] == 0 and row["reward_parts"] == {"judge": 0.5, "own": pytest.approx(0.7)}
    assert row["parts_unscored"] == {"judge": 3, "own": 1}
    assert row["parts_reasons"] == {"judge": ["2 x HTTP 503", "1 x not asked"], "own": ["1 x not asked"]}


def test_ties_are_the_share_of_pairs_within_groups_that_are_trained_on() -> None:
    groups = [group([0.5, 0.5, 0.50005, 0.9]), group([0.1, 0.3, math.nan]), group([0.7]), group([1, 1], dropped="high")]
    start = edit_statistics(measures(*groups))
    row = step_row(1, measures(*groups), {}, start, {"total": 1.0})
    pairs = [(a, b) for rewards in ([0.5, 0.5, 0.50005, 0.9], [0.1, 0.3]) for a, b in combinations(rewards, 2)]
    assert row["ties"] == pytest.approx(sum(abs(a - b) < 1e-4 for a, b in pairs) / len(pairs)) == pytest.approx(3 / 7)
    assert row["kept_by_task"] == {"add": 3}
    alone = step_row(1, measures(group([0.7])), {}, start, {"total": 1.0})
    assert alone["ties"] is None


def test_look_of_images_that_are_known() -> None:
    assert look(np.full((4, 5, 3), 0.5, np.float32)) == pytest.approx([0.5, 0, 0])
    assert look(np.zeros((4, 5, 3), np.float32)) == pytest.approx([0, 0, 0])
    assert look(np.broadcast_to(np.array([1, 0.5, 0.25], np.float32), (4, 5, 3))) == pytest.approx(
        [0.299 + 0.2935 + 0.0285, 0.75, 0]
    )
    stripes = np.zeros((4, 6, 3), np.float32)
    stripes[:, ::2] = 1
    assert look(stripes) == pytest.approx([0.5, 0, 0.5])  # every step along the rows is 1, along the columns 0


def test_edits_are_measured_against_their_source() -> None:
    edits = edit_statistics(measures(group([0.5, 0.5], colour=RED), group([0.5, 0.5], colour=GREY)))
    grey = 128 / 255
    assert edits["latent_norm"] == pytest.approx(2)
    assert edits["brightness"] == pytest.approx((0.299 - grey) / 2, abs=1e-6)
    assert edits["saturation"] == pytest.approx(0.5)
    assert edits["sharpness"] == pytest.approx(0, abs=1e-7)
    assert edits["source_distance"] == pytest.approx((1 - grey + 2 * grey) / 3 / 2, abs=1e-6)


def test_a_source_of_another_size_is_brought_to_the_edits_size() -> None:
    one = group([0.5])
    one.rollout = replace(one.rollout, images=[Image.new("RGB", (20, 12), GREY)])
    assert edit_statistics(measures(one))["source_distance"] == 0


def test_a_row_holds_drift_since_the_start_and_why_groups_were_dropped() -> None:
    groups = [
        group([0.1, 0.3], colour=RED),
        group([1, 1], dropped="agree_and_high"),
        group([0, 1], dropped="agree_and_high"),
    ]
    start = edit_statistics(measures(group([0.5], colour=GREY)))
    row = step_row(
        7, measures(*groups), {"loss": None, "grad_norm": 2.0}, start, {"rollout": 1.0, "rest": 0.5, "total": 1.5}
    )
    assert (row["step"], row["groups_kept"], row["dropped"]) == (7, 1, {"agree_and_high": 2})
    assert (row["loss"], row["grad_norm"]) == (None, 2.0)
    assert row["drift"]["saturation"] == pytest.approx(1 / 3)
    assert row["drift"]["latent_norm"] == 0
    assert row["seconds"] == {"rollout": 1.0, "rest": 0.5}
    assert row["images_per_s"] == pytest.approx(4)
    assert json.loads(json.dumps(row)) == row


def test_a_watch_measures_every_edit_and_the_row_holds_the_mean_over_all() -> None:
    groups = [group([0.0, 0.5, 1.0]), group([0.2])]
    watched = [
        measure(each, lambda one: {"oracle": [float(len(one.rollout.images))] * len(one.rollout.images)})
        for each in groups
    ]
    row = step_row(1, watched, {}, edit_statistics(watched), {"total": 1.0})
    assert row["watched"] == {"oracle": (3 * 3 + 1) / 4}
    assert "watched" not in step_row(1, measures(*groups), {}, edit_statistics(watched), {"total": 1.0})


def test_measures_are_plain_numbers_that_another_process_can_send() -> None:
    one = measure(group([0.5, math.nan]))
    assert GroupMeasures(**json.loads(json.dumps(asdict(one)))) == one


def test_the_parts_of_a_step_add_up() -> None:
    clock = Stopwatch()
    for _ in range(2):
        with clock("judge"):
            sum(range(10_000))
    seconds = clock.read()
    assert set(seconds) == {"judge", "rest", "total"}
    assert seconds["judge"] + seconds["rest"] == pytest.approx(seconds["total"])
    assert seconds["judge"] > 0 < seconds["rest"]


def rows_of(out: Path) -> list[int]:
    return [row["step"] for row in read_lines(out / "metrics.jsonl")]


def test_rows_past_the_checkpoint_and_a_line_that_was_cut_are_dropped_on_resume(tmp_path: Path) -> None:
    rest = {
        "reward_by_task": {"add": 0.5, "style": None},
        "unscored": 0,
        "groups_kept": 1,
        "dropped": {},
        "seconds": {},
    }
    log = RunLog(tmp_path, 0)
    for step in range(1, 6):
        log.write({"step": step, "reward_mean": step / 10, **rest})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "rew')
    assert rows_of(tmp_path) == [1, 2, 3, 4, 5]
    log = RunLog(tmp_path, 3)
    assert rows_of(tmp_path) == [1, 2, 3]
    log.write({"step": 4, "reward_mean": 0.9})
    log.close()
    assert rows_of(tmp_path) == [1, 2, 3, 4]
    assert read_lines(tmp_path / "metrics.jsonl")[-1]["reward_mean"] == 0.9


def test_a_row_is_on_the_disk_when_write_returns(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.write({"step": 1})
    assert rows_of(tmp_path) == [1]
    log.close()


def test_a_grid_shows_the_source_then_the_edits_of_each_group() -> None:
    one, two = group([0.5, math.nan], colour=RED), group([1.0, 0.0], dropped="no_spread")
    one.sample = EditSample("k", Image.new("RGB", (8, 8), (0, 0, 255)), "füge eine Katze hinzu")
    grid = sample_grid([strip_of(one, cell=50), strip_of(two, cell=50)])
    assert grid.size == (3 * 50, 2 * (50 + 28))
    assert [grid.getpixel((x, 35)) for x in (25, 75, 125)] == [(0, 0, 255), RED, RED]
    assert grid.getpixel((75, 50 + 28 + 35)) == GREY


def test_the_mask_that_was_used_given_or_derived_is_outlined_on_the_source_of_a_grid() -> None:
    cell, mask, edit = 54, Image.new("L", (32, 32)), Image.new("RGB", (32, 32), GREY)
    mask.paste(255, (0, 0, 9, 32))
    edit.paste(RED, (16, 16, 28, 28))
    derived = group([0.5, 0.6, 0.7])
    derived.sample = replace(derived.sample, source=Image.new("RGB", (32, 32), GREY))
    derived.rollout = replace(derived.rollout, images=[edit] * 3)
    given = replace(derived, sample=replace(derived.sample, mask=mask))
    styled = replace(derived, sample=replace(derived.sample, task="style"))
    strips = [strip_of(each, KeptConfig(), cell) for each in (given, derived, styled)]
    found, bare = derive_mask(derived.sample.source, [edit] * 3), strip_of(derived, cell=cell).pictures[0]
    assert isinstance(found, Image.Image)
    expected = [outlined(bare, mask).tobytes(), outlined(bare, found).tobytes(), bare.tobytes()]
    assert [strip.pictures[0].tobytes() for strip in strips] == expected and len({*expected}) == 3
    assert [strip.source for strip in strips] == ["source, its mask", "source, its mask", "source"]
    (other,) = strip_of(given, KeptConfig(masks="group"), cell).pictures[:1]
    assert other.tobytes() == expected[1], "it is the one that is used"


def test_edits_of_a_large_group_go_on_in_further_lines_of_the_grid() -> None:
    many = group([index / 20 for index in range(11)])
    grid = sample_grid([strip_of(many, cell=50), strip_of(group([0.5]), cell=50)])
    assert grid.size == (9 * 50, 2 * 2 * (50 + 28))
    marks = [(i % 8 + 1, i // 8) for i in range(11)]
    assert all(grid.getpixel((50 * x + 25, 78 * y + 35)) == GREY for x, y in marks)
    assert grid.getpixel((50 * 4 + 25, 78 + 35)) == (255, 255, 255)


def test_what_is_written_beside_a_grid_finds_each_of_its_pictures() -> None:
    strips = [strip_of(group([index / 20 for index in range(11)], colour=RED), cell=50)]
    strips.append(strip_of(group([math.nan, 0.25], dropped="no_spread"), cell=50))
    grid, told = sample_grid(strips), places(strips)
    assert told["side"] == 46 and [each["dropped"] for each in told["groups"]] == [None, "no_spread"]
    assert told["groups"][1]["rewards"] == [None, 0.25]
    for strip, each in zip(strips, told["groups"], strict=True):
        for picture, (x, y) in zip(strip.pictures, each["places"], strict=True):
            assert grid.crop((x, y, x + 46, y + 46)).tobytes() == picture.tobytes()


def test_progress_says_reward_groups_and_speed_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "step": 3,
        "reward_mean": 0.4567,
        "groups_kept": 5,
        "dropped": {"high": 2, "no_spread": 1},
        "images_per_s": 12.34,
    }
    with StepProgress(0, 60) as progress:
        progress.show(row)
        progress.show({**row, "step": 4, "reward_mean": None})
        progress.show({**row, "step": 5, "unscored": 0, "parts_unscored": {"judge": 24, "own": 0}})
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 3/60: reward 0.457, 5/8 groups kept, 12.3 images/s",
        "step 4/60: reward none, 5/8 groups kept, 12.3 images/s",
        "step 5/60: reward 0.457, 5/8 groups kept, 12.3 images/s, no judge for 24 edits",
    ]
