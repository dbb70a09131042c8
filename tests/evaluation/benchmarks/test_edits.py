"""Edits: the same whatever the number of processes and whatever was there; a process that dies; picks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.config.settings import AdapterConfig
from editr1.editors.open import open_named_editor
from editr1.errors import UserError
from editr1.evaluation.benchmarks.edits import (
    EditSettings,
    choose,
    files_of,
    make_edits,
    missing,
    prepare,
    settings_dict,
)
from editr1.evaluation.benchmarks.imgedit import ImgEdit
from editr1.judges.base import JudgeRequest, Score
from tests.evaluation.benchmarks.folders import imgedit_folder
from tests.tiny import shake

SETTINGS = EditSettings(editor="toy:qwen-image-edit", steps=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imgedit_folder(tmp_path_factory.mktemp("data"), items=6)


def made(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.png"))}


def test_two_processes_share_all_items_and_their_edits_equal_those_of_one(data: Path, tmp_path: Path) -> None:
    done: list[int] = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        assert make_edits(partial(ImgEdit, data), SETTINGS, out, processes, on_item=lambda: done.append(1)) == {}
        assert not missing(ImgEdit(data).items, SETTINGS, out)
    assert made(tmp_path / "1") == made(tmp_path / "2") and len(made(tmp_path / "1")) == 6
    assert len(set(made(tmp_path / "1").values())) == 6 and len(done) == 12


def test_a_process_that_dies_is_told_and_the_finished_edits_stay(data: Path, tmp_path: Path) -> None:
    def kill() -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(UserError, match=r"ended with code -9 .* fewer --processes"):
        make_edits(partial(ImgEdit, data), SETTINGS, tmp_path, 2, on_item=kill)
    assert 1 <= len(made(tmp_path)) < 6 and not multiprocessing.active_children()


def test_an_item_whose_source_cannot_be_read_has_no_edit_and_a_reason(tmp_path: Path) -> None:
    folder = imgedit_folder(tmp_path / "data", items=2)
    first = ImgEdit(folder).items[0]
    broken = json.loads((folder / "basic_edit.json").read_text())["1000"]["id"]
    (folder / broken).write_text("no picture")
    failed = make_edits(partial(ImgEdit, folder), SETTINGS, tmp_path / "out")
    assert list(failed) == [first.key] and "cannot read a picture" in failed[first.key]
    assert list(made(tmp_path / "out")) == ["1001.png"]


class Values:
    """A reward that gives prepared values."""

    remote = False

    def __init__(self, values: Sequence[float | None]) -> None:
        self.values = list(values)

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        found = [self.values.pop(0) for _ in requests]
        return [Score(value, None if value is not None else "dead") for value in found]


@pytest.mark.parametrize(
    ("rewards", "picked"), [((0.1, 0.9, 0.9), 1), ((None, 0.2, None), 1), ((0.0, None, None), 0), ((None,) * 3, None)]
)
def test_the_first_of_the_best_rewarded_is_picked_and_a_missing_reward_never_counts_as_zero(
    data: Path, tmp_path: Path, rewards: Any, picked: int | None
) -> None:
    item = ImgEdit(data).items[0]
    settings = EditSettings(editor="x", best_of=3)
    for number, name in enumerate(files_of(item, settings)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
    failed = choose([item], Values(rewards), settings, tmp_path)
    if picked is None:
        assert failed == {item.key: "none of 3 candidates has a reward: dead"}
        assert not (tmp_path / item.edit_file).exists()
    else:
        with Image.open(tmp_path / item.edit_file) as edit:
            assert edit.getpixel((0, 0)) == (picked, 0, 0)
        line = json.loads((tmp_path / "picks.jsonl").read_text())
        assert line["picked"] == picked and line["rewards"] == list(rewards)
        assert choose([item], Values([]), settings, tmp_path) == {}, "what was chosen stays"


def test_a_folder_is_bound_to_its_settings_once_there_are_edits(tmp_path: Path) -> None:
    prepare(tmp_path, {"steps": 2})
    prepare(tmp_path, {"steps": 3})
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    prepare(tmp_path, {"steps": 3})
    with pytest.raises(UserError, match="steps 3, now it is 4"):
        prepare(tmp_path, {"steps": 4})


def test_the_scale_of_a_lora_is_recorded_and_a_folder_of_an_older_version_goes_on(tmp_path: Path) -> None:
    assert settings_dict(SETTINGS)["lora_scale"] is None, "there is no LoRA"
    whole, half = (EditSettings(editor="toy", lora="a", lora_scale=scale) for scale in (1.0, 0.5))
    assert settings_dict(half)["lora_scale"] == 0.5
    for settings in (SETTINGS, whole):
        out = tmp_path / str(settings.lora)
        old = {name: value for name, value in settings_dict(settings).items() if name != "lora_scale"}
        prepare(out, old)
        Image.new("RGB", (8, 8)).save(out / "a.png")
        prepare(out, settings_dict(settings))
    with pytest.raises(UserError, match=r"holds edits made with lora_scale 1\.0, now it is 0\.5"):
        prepare(tmp_path / "a", settings_dict(half))


def test_edits_are_made_with_the_scale_of_the_lora(data: Path, tmp_path: Path) -> None:
    editor = open_named_editor(SETTINGS.editor)
    editor.add_policies(AdapterConfig(rank=2, alpha=4))
    shake(editor, 0.3, seed=1)
    editor.policies.save(tmp_path / "lora", "default")
    (lora,) = (tmp_path / "lora").glob("*.safetensors")
    pictures = {}
    for scale in (None, 0.0, 1.0, 2.0):
        settings = SETTINGS if scale is None else replace(SETTINGS, lora=str(lora), lora_scale=scale)
        make_edits(partial(ImgEdit, data, limit=2), settings, tmp_path / str(scale))
        pictures[scale] = made(tmp_path / str(scale))
    assert pictures[None] == pictures[0.0] and len(pictures[None]) == 2
    assert not set(pictures[2.0].values()) & {*pictures[0.0].values(), *pictures[1.0].values()}
