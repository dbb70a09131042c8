"""Training on stored edits: the loss, the order of items, resuming, and that nobody makes or judges an edit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from editr1.algorithms.base import Edits
from editr1.config.settings import Config
from editr1.data.edited import PreferenceLine
from editr1.data.forms import open_stored
from editr1.data.samples import GroupSampler
from editr1.data.seeds import derive_seed
from editr1.editors import stored
from editr1.editors.open import open_editor
from editr1.errors import UserError
from editr1.files import read_lines
from editr1.judges.base import Unasked
from editr1.report.run import write_report
from editr1.training.interrupts import Interrupts
from editr1.training.trainer import Trainer
from tests.training.runs import Colours, RedJudge, assert_same_run, settings
from tests.training.stored import Edited, stored_settings, write_preferences


@pytest.fixture
def run(tiny_editor_path: Path, tmp_path: Path) -> Any:
    """A trainer on stored edits, on a freshly loaded tiny editor."""

    def build(out: str = "out", kind: str = "preferences", dataset: Any = None, **changes: Any) -> Trainer:
        config = stored_settings(kind, **changes)
        dataset = dataset or Edited(config.rollout.group_size)
        editor = open_editor(tiny_editor_path, pixels=1024)
        return Trainer(config, editor, Unasked(), dataset, tmp_path / out)

    return build


def test_the_first_loss_of_dpo_is_log_2_by_beta_and_later_the_chosen_edits_are_likelier(run: Any) -> None:
    trainer = run(steps=12, optim__lr=1e-2, algorithm__beta=5.0)
    trainer.train()
    rows = read_lines(trainer.out / "metrics.jsonl")
    assert rows[0]["preference"] == pytest.approx(math.log(2) / 5.0, rel=1e-6) and rows[0]["decided"] == 0
    assert rows[-1]["preference"] < 0.95 * rows[0]["preference"] and rows[-1]["decided"] == 1
    assert [row["groups_kept"] for row in rows] == [2] * 12


def test_the_loss_of_supervised_finetuning_is_the_error_of_the_velocity_toward_the_target(run: Any) -> None:
    trainer = run(kind="pairs", algorithm__kl=0.0)
    row = trainer.train_step(None, Interrupts())
    editor, errors = trainer.editor, []
    for index, item in enumerate(GroupSampler(5, 2, 0).draw(0)[0]):
        sample, (target,) = Edited(1)[item], Edited(1).edits(item)
        conditioning, levels = stored.prepare(editor, sample, 3, "dpm2")
        x0 = stored.encode(editor, sample, target)
        generator = torch.Generator().manual_seed(derive_seed(0, "noise", 0, index))
        rows = trainer.algorithm.rows(Edits(x0, torch.ones(1), levels), generator)
        eps = (rows.x_t - (1 - rows.t[:, None, None]) * x0) / rows.t[:, None, None]
        with torch.no_grad(), editor.policies.using("reference"):
            v = editor.velocity(conditioning, rows.x_t, rows.t)
        errors.append((v - (eps - x0)).square().mean())
        assert rows.t.min() > 0 and not {*rows.t.tolist()} & {*levels.tolist()}  # levels that no sampler has visited
    assert row["loss"] == row["error"] == pytest.approx(float(torch.stack(errors).mean()), rel=1e-4)


@pytest.mark.parametrize("kind", ["preferences", "pairs"])
def test_no_edit_is_made_or_judged_and_a_row_has_no_reward(
    run: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = run(kind=kind)
    trainer.collector.judge = judge = RedJudge()
    monkeypatch.setattr(trainer.editor, "rollout", lambda *some, **more: pytest.fail("an edit was made"))
    trainer.train()
    assert judge.calls == 0
    for row in read_lines(trainer.out / "metrics.jsonl"):
        assert row["reward_mean"] is None and row["unscored"] == 0 and row["update_norm"] > 0
        assert {*row["seconds"]} == {"read", "train", "rest"}
    page = write_report(trainer.out).read_text(encoding="utf-8")
    assert "none: edits are read" in page and "read from the disk" in page
    assert "no judge is asked" in page and "Mean reward" not in page and "Drift of the edits" not in page


def test_every_epoch_has_each_item_once_in_an_order_that_follows_from_the_seed(run: Any) -> None:
    orders = []
    for seed in (0, 1):
        trainer, seen = run(out=str(seed), seed=seed), list[int]()
        edits = trainer.dataset.edits
        trainer.dataset.edits = lambda index, seen=seen, edits=edits: (seen.append(index), edits(index))[1]
        for _ in range(5):
            trainer.train_step(None, Interrupts())
        assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4] and seen[:5] != seen[5:]
        orders.append(seen)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("kind", ["preferences", "pairs"])
def test_a_run_that_was_stopped_is_the_run_that_was_not(run: Any, tmp_path: Path, kind: str) -> None:
    run(kind=kind).train()
    for until in (1, 3):
        run(out="parts", kind=kind).train(until=until)
    assert_same_run(tmp_path / "out", tmp_path / "parts")


def test_items_without_edits_are_refused(run: Any) -> None:
    with pytest.raises(UserError, match="Colours has no stored edits"):
        run(dataset=Colours())


def test_stored_files_are_trained_on_like_pictures_in_memory(run: Any, tmp_path: Path) -> None:
    data = open_stored(write_preferences(tmp_path / "data"), kind=PreferenceLine)
    run(out="files", dataset=data).train()
    run(out="memory").train()
    assert_same_run(tmp_path / "files", tmp_path / "memory")


@pytest.mark.parametrize("name", ["nft", "awm", "crd", "dgpo", "rft"])
def test_other_algorithms_take_preferences(run: Any, name: str) -> None:
    trainer = run(algorithm={"name": name, "timesteps_per_image": 2}, steps=2)
    trainer.train()
    assert all(row["groups_kept"] == 2 and row["update_norm"] > 0 for row in read_lines(trainer.out / "metrics.jsonl"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"watch": {"judge": {"path": "red"}}}, "none is made or judged; leave watch out"),
        (
            {"rollout__scouts": 99, "rollout__scout_steps": 2, "data__ban_solved": True},
            "leave rollout.scouts, data.ban",
        ),
        ({"rollout__most_groups": 5}, "leave rollout.most_groups out"),
        ({"judge": {"path": "red"}}, "a judge scores held-out items alone; leave judge and rewards out"),
        ({"evaluation": {"split": 2}}, "evaluation asks a judge about held-out edits; give judge or rewards"),
        ({"algorithm": {"name": "grpo"}}, 'algorithm "grpo" needs the path of a sampler'),
        ({"algorithm": {"name": "sft"}}, 'algorithm "sft" trains on good and bad alike'),
        ({"rollout__group_size": 3}, 'rollout.group_size=3: an item of data.kind "preferences" has 2'),
        ({"kind": "pairs", "algorithm": {"name": "rft"}}, "compares edits, and an item has one"),
        ({"data": {"kind": "pairs"}}, 'data.path must name the folder when data.kind is "pairs"'),
    ],
)
def test_what_makes_no_sense_on_stored_edits_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        stored_settings(**changes)
    assert said in str(refusal.value)


def test_what_makes_sense_on_stored_edits_alone_is_refused_elsewhere() -> None:
    with pytest.raises(ValidationError, match=r"rollout\.group_size=1 leaves nothing to compare"):
        settings(rollout__group_size=1)
    with pytest.raises(ValidationError, match="algorithm 'sft' trains on every edit, whatever its reward"):
        settings(algorithm={"name": "sft"})


@pytest.mark.parametrize(("kind", "size"), [("preferences", 2), ("pairs", 1)])
def test_a_group_has_as_many_edits_as_an_item_and_the_settings_are_read_again(kind: str, size: int) -> None:
    config = stored_settings(kind)
    assert config.rollout.group_size == size
    assert Config.model_validate(config.model_dump(mode="json")) == config
