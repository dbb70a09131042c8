from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from editr1.config.loading import load_config
from editr1.config.watching import KeptConfig
from editr1.data.samples import EditSample
from editr1.editors.open import open_named_editor
from editr1.editors.round_trip import round_trip
from editr1.preservation.measure import Outside, measure_outside
from editr1.preservation.region import derive_mask
from editr1.preservation.structure import structure
from editr1.toy.world import ToyDataset
from editr1.training.group import Group
from editr1.training.open import open_trainer
from editr1.training.preserving import Measure, joined_watch, watch_outside
from editr1.training.regions import divide
from editr1.training.step_row import GroupMeasures, joined, watched_means
from tests.training.runs import rows_of
from tests.training.scenarios import assert_goes_on_exactly, trainer_of

SAMPLE = ToyDataset("heldout", 1)[0]


class Images:
    """Edits, as far as a watch looks at them."""

    def __init__(self, images: list[Image.Image]) -> None:
        self.images = images


def group_of(sample: EditSample, images: list[Image.Image]) -> Group:
    return Group(0, sample, Images(images))  # type: ignore[arg-type]


def worse(level: float) -> Image.Image:
    """The source of `SAMPLE` with noise."""
    values = np.asarray(SAMPLE.source, np.float64)
    return Image.fromarray(
        (values + np.random.default_rng(0).normal(0, level, values.shape)).clip(0, 255).astype("uint8")
    )


@pytest.fixture(scope="module")
def editor() -> Any:
    return open_named_editor("toy:qwen-image-edit", None, device=torch.device("cpu"))


def test_each_edit_is_measured_by_the_mask_of_its_item_beside_the_round_trip(editor: Any) -> None:
    images = [worse(2), worse(9)]
    told = watch_outside(editor, KeptConfig(masks="data"))(group_of(SAMPLE, images))
    trip = round_trip(editor.pipe, SAMPLE.source, (64, 64))
    expected = [each.measures for each in measure_outside(SAMPLE.source, images, SAMPLE.mask, trip)]
    assert told["outside/measured"] == [1.0, 1.0]
    for name in ("psnr", "ssim", "ceiling_psnr", "ceiling_ssim"):
        assert told[f"outside/{name}"] == [each[name] for each in expected]
    assert told["outside/psnr"][0] > told["outside/psnr"][1]


def test_a_vision_model_measures_the_likeness_of_each_edit_and_of_the_round_trip(editor: Any, dino: Path) -> None:
    watch = watch_outside(editor, KeptConfig(masks="data", features=str(dino)))
    told = watch(group_of(SAMPLE, [SAMPLE.source, worse(60)]))
    untouched, noisy = told["outside/features"]
    assert untouched == pytest.approx(1) and noisy < 0.9999  # random weights tell little apart
    assert len(told["outside/ceiling_features"]) == 2 and told["outside/ceiling_features"][0] < 1


def test_an_item_without_mask_is_not_measured_and_counts_in_no_mean(editor: Any) -> None:
    watch = watch_outside(editor, KeptConfig(masks="data"))
    masked, bare = (watch(group_of(sample, [worse(4)] * 2)) for sample in (SAMPLE, replace(SAMPLE, mask=None)))
    assert bare == {"outside/measured": [0.0, 0.0]}
    means = watched_means([measures("add", masked), measures("style", bare)])
    assert means["outside"]["measured"] == 0.5
    assert means["outside"]["psnr"] == pytest.approx(masked["outside/psnr"][0])
    assert means["outside_by_task"]["measured/style"] == 0 and "psnr/style" not in means["outside_by_task"]


def test_a_mask_is_derived_where_the_item_has_none_or_the_settings_say_so(editor: Any) -> None:
    edit = SAMPLE.source.copy()
    edit.paste((255, 0, 255), (20, 20, 40, 40))
    images = [edit] * 4
    derived = derive_mask(SAMPLE.source, images)
    assert isinstance(derived, Image.Image)
    for settings, sample in (
        (KeptConfig(), replace(SAMPLE, mask=None)),
        (KeptConfig(masks="group"), SAMPLE),
    ):
        told = watch_outside(editor, settings)(group_of(sample, images))
        expected = [each.measures["psnr"] for each in measure_outside(SAMPLE.source, images, derived)]
        assert told["outside/psnr"] == expected
    whole = replace(SAMPLE, mask=None, task="style")
    told = watch_outside(editor, KeptConfig())(group_of(whole, images))
    assert told["outside/measured"] == [0.0] * 4 and told["outside/structure"] == [structure(SAMPLE.source, edit)] * 4
    assert {*told} == {"outside/measured", "outside/structure", "outside/ceiling_structure"}


def test_the_parts_of_a_group_that_two_ranks_made_give_the_row_of_the_whole_group(editor: Any) -> None:
    watch, images = watch_outside(editor, KeptConfig(masks="data")), [worse(level) for level in (1, 3, 5)]
    whole = measures("add", watch(group_of(SAMPLE, images)))
    parts = [measures("add", watch(group_of(SAMPLE, some))) for some in (images[:1], images[1:])]
    assert watched_means([joined(parts)]) == watched_means([whole])


def test_several_watches_tell_side_by_side() -> None:
    watch = joined_watch([lambda group: {"judge": [0.5]}, lambda group: {"outside/psnr": [30.0]}])
    assert watch is not None and joined_watch([]) is None
    told = watch(group_of(SAMPLE, []))
    assert watched_means([measures("add", told)]) == {
        "watched": {"judge": 0.5},
        "outside": {"psnr": 30.0},
        "outside_by_task": {"psnr/add": 30.0},
    }


def measures(task: str, watched: Any) -> GroupMeasures:
    return GroupMeasures(task, [], [None], {}, {}, [], None, 1.0, [], dict(watched))


@pytest.mark.long
def test_a_run_that_stops_and_goes_on_measures_what_the_whole_run_does(tiny_editor_path: Path, tmp_path: Path) -> None:
    assert_goes_on_exactly("masks of groups", tmp_path, tiny_editor_path)
    rows = rows_of(tmp_path / "whole")
    assert all(0 <= row["outside"]["measured"] <= 1 for row in rows)
    assert any("psnr" in row["outside"] for row in rows)


@pytest.mark.parametrize("algorithm", ["nft", "awm"])
def test_preserve_goes_with_a_preset_under_other_algorithms_too(algorithm: str, tmp_path: Path) -> None:
    sizes = ["rollout.group_size=4", "rollout.groups_per_step=2", "rollout.steps=2", "steps=1", f"out={tmp_path}"]
    settings = {"filter": "off", "timesteps_per_image": 1}
    open_trainer(load_config("toy", ["+preserve", f"algorithm={settings | {'name': algorithm}}", *sizes])).train()
    (row,) = rows_of(tmp_path)
    assert 0 < row["reward_parts"]["kept"] < 1 and not any(row["parts_unscored"].values())
    assert row["outside"]["psnr"] == pytest.approx(10 + 30 * row["reward_parts"]["kept"], abs=1e-3)


def test_the_weights_do_not_depend_on_what_is_measured(tiny_editor_path: Path, tmp_path: Path) -> None:
    for name in ("masks", "references"):
        trainer_of(name, tmp_path / name, tiny_editor_path).train(until=1)
    one, other = (rows_of(tmp_path / name) for name in ("masks", "references"))
    assert "outside" in one[0] and "outside" not in other[0]
    assert [{k: v for k, v in row.items() if not k.startswith("outside")} for row in one] == other


WIDE, TALL = (96, 32), (32, 96)


def shapes_folder(folder: Path) -> Path:
    """Two shapes of sources, each with a mask as a picture, in pixels, and in shares: the left or upper half."""
    folder.mkdir()
    lines = []
    for number, size in enumerate((WIDE, TALL)):
        (width, height), name = size, ("wide", "tall")[number]
        noise = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}.png")
        half = (width // 2, height) if size == WIDE else (width, height // 2)
        mask = Image.new("L", size)
        mask.paste(255, (0, 0, *half))
        mask.save(folder / f"{name}_mask.png")
        boxes = {"pixels": [0, 0, *half], "share": [0, 0, half[0] / width, half[1] / height]}
        masks: dict[str, Any] = {unit: {"unit": unit, "boxes": [box]} for unit, box in boxes.items()}
        for kind, given in {"picture": f"{name}_mask.png", **masks}.items():
            line = {"source": f"{name}.png", "instruction": "Add a cat.", "task": "add", "key": f"{name}-{kind}"}
            lines.append(json.dumps({**line, "mask": given}))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_masks_of_several_shapes_are_measured_rewarded_and_trained_by_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, grids = dict[str, Any](), dict[tuple[int, int], Any]()

    def measured(measure: Measure, sample: EditSample, images: list[Image.Image], mask: Image.Image) -> list[Outside]:
        told[sample.key] = (sample, images, mask, ask(measure, sample, images, mask))
        return told[sample.key][-1]

    def divided(mask: Image.Image, size: tuple[int, int], tokens: int) -> Any:
        parts = divide(mask, size, tokens)
        assert np.array_equal(grids.setdefault(size, parts), parts), "one shape, whatever form the mask has"
        return parts

    ask = Measure.__call__
    monkeypatch.setattr(Measure, "__call__", measured)
    monkeypatch.setattr("editr1.training.regions.divide", divided)
    sizes = [
        "rollout.group_size=3",
        "rollout.groups_per_step=6",
        "rollout.steps=2",
        "steps=1",
        f"out={tmp_path / 'run'}",
    ]
    data = [f"data={{kind: jsonl, path: {shapes_folder(tmp_path / 'data')}}}", "algorithm.filter=off"]
    kept = "preservation={masks: data, weight: 0.5, margin: 0.0, advantages: region}"
    changes = ["+preserve", "rewards.kept.masks=data", kept, *data, *sizes]
    open_trainer(load_config("toy", changes)).train()
    (row,) = rows_of(tmp_path / "run")

    assert sorted(told) == [f"{name}-{kind}" for name in ("tall", "wide") for kind in ("picture", "pixels", "share")]
    decibels = []
    for key, (sample, images, mask, outsides) in told.items():
        size = WIDE if key.startswith("wide") else TALL
        assert {sample.source.size, mask.size, *(image.size for image in images)} == {size}
        rest = np.s_[:, 48:] if size == WIDE else np.s_[48:]  # outside of the mask
        before = np.asarray(sample.source, np.float64)[rest] / 255
        for image, outside in zip(images, outsides, strict=True):
            error = np.square(np.asarray(image, np.float64)[rest] / 255 - before).mean()
            decibels.append(-10 * np.log10(error))
            assert outside.measures["psnr"] == pytest.approx(decibels[-1], abs=1e-3)
    assert row["outside"]["measured"] == 1 and row["outside"]["psnr"] == pytest.approx(np.mean(decibels), abs=1e-3)
    rewards = np.clip((np.array(decibels) - 10) / 30, 0, 1)
    assert row["reward_parts"]["kept"] == pytest.approx(rewards.mean(), abs=1e-4) and rewards.std() > 0
    assert row["groups_kept"] == 6 and row["grad_norm"] > 0
    for size, (masked, outside) in grids.items():  # six tokens by two, the third of the six next to the fourth
        places = np.tile(np.arange(6), (2, 1)) if size == WIDE else np.tile(np.arange(6), (2, 1)).T
        assert np.array_equal(masked, places < 3) and np.array_equal(outside, places > 3)
    assert set(grids) == {WIDE, TALL}
