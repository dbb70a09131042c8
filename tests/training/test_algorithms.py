"""Every algorithm trains every editor: a finite loss, weights that move, and a run that stops and goes on exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from editr1.algorithms.base import find_algorithms
from editr1.editors.families import FAMILIES
from editr1.editors.open import open_editor
from editr1.files import read_lines
from editr1.judges.base import Unasked
from editr1.toy.assets import toy_path
from editr1.training.trainer import Trainer
from tests.editors.conftest import pipeline_path as pipeline_path
from tests.editors.test_stored import REFUSED
from tests.training.runs import ONLINE, Colours, RedJudge, assert_stops_and_goes_on_exactly, settings
from tests.training.stored import Edited, stored_settings

TOYS = {"toy:qwen-image-edit": "qwen-image-edit", "toy:flux-kontext": "flux-kontext"}
EVERY_EDITOR = [*TOYS, *sorted(FAMILIES)]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ONLINE)
@pytest.mark.parametrize("editor", EVERY_EDITOR)
def test_two_steps_have_a_finite_loss_and_move_the_weights_and_the_second_one_is_the_same_after_a_stop(
    editor: str, algorithm: str, pipeline_path: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = toy_path(TOYS[editor]) if editor in TOYS else pipeline_path(editor)
    pixels = 64 * 64 if editor in TOYS else 64 * 96
    changes = {"rollout__groups_per_step": 1, "rollout__group_size": 3, "steps": 2, "optim__lr": 1e-2}
    config = settings(**changes, algorithm__name=algorithm, editor__pixels=pixels)
    before: list[torch.Tensor] = []

    def trainer_in(out: Path) -> Trainer:
        trainer = Trainer(config, open_editor(folder, pixels=pixels), RedJudge(), Colours(), out)
        before.extend(weight.detach().clone() for weight in trainer.params if trainer.out.name == "whole")
        return trainer

    trainer = assert_stops_and_goes_on_exactly(tmp_path, trainer_in)
    rows = read_lines(tmp_path / "whole" / "metrics.jsonl")
    numbers = [row[name] for row in rows for name in ("loss", "grad_norm", *find_algorithms()[algorithm].parts)]
    assert len(rows) == 2 and all(math.isfinite(number) for number in numbers)
    assert any(row["grad_norm"] > 0 for row in rows)
    assert all(weight.isfinite().all() for weight in trainer.params)
    assert any(not torch.equal(weight, was) for weight, was in zip(trainer.params, before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("preferences", 2), ("pairs", 1)])
@pytest.mark.parametrize("editor", [editor for editor in EVERY_EDITOR if editor not in REFUSED])
def test_two_steps_on_stored_edits_move_the_weights_and_the_second_one_is_the_same_after_a_stop(
    editor: str, kind: str, size: int, pipeline_path: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = toy_path(TOYS[editor]) if editor in TOYS else pipeline_path(editor)
    config = stored_settings(kind, steps=2, optim__lr=1e-2, editor__pixels=64 * 64)

    def trainer_in(out: Path) -> Trainer:
        return Trainer(config, open_editor(folder, pixels=64 * 64), Unasked(), Edited(size), out)

    assert_stops_and_goes_on_exactly(tmp_path, trainer_in)
    rows = read_lines(tmp_path / "whole" / "metrics.jsonl")
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) and row["update_norm"] > 0 for row in rows)
