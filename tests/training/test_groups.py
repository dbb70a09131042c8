"""Groups that a run keeps are trained on as if they had just been made and judged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from editr1.data.samples import GroupSampler
from editr1.editors.open import open_editor
from editr1.errors import UserError
from editr1.files import read_lines
from editr1.judges.base import Unasked
from editr1.training.groups import GroupDataset
from editr1.training.interrupts import Interrupts
from editr1.training.keeping import GroupFolder
from editr1.training.log import Stopwatch
from editr1.training.trainer import Trainer
from tests.training.runs import Make, assert_same_run
from tests.training.scenarios import half_red
from tests.training.stored import stored_settings

ORDERED = next(seed for seed in range(9) if GroupSampler(2, 2, seed).draw(0)[0] == [0, 1])
"""A seed by which an epoch of two items is in their order."""
SAVED = {"rollout__save_groups": True, "rollout__group_size": 3, "failures__steps": 99}


def saved(make: Make, out: str = "online", steps: int = 1, **changes: Any) -> Trainer:
    """A run that has kept its groups, with mixed and missing rewards."""
    trainer = make(out, half_red(), **SAVED, seed=ORDERED, steps=steps, **changes)
    trainer.train()
    return trainer


@pytest.fixture
def again(tiny_editor_path: Path, tmp_path: Path) -> Any:
    """A trainer on groups that were kept."""

    def build(folder: Path, out: str = "again", pixels: int = 1024, **changes: Any) -> Trainer:
        algorithm = {
            "name": "nft",
            "kl": 0.1,
            "filter": "off",
            "timesteps_per_image": 2,
            "old_rate": 0.3,
            "std": "group",
        }
        rollout = {"group_size": 3, "groups_per_step": 2, "steps": 3}
        own = {"data": {"kind": "groups", "path": folder}, "algorithm": algorithm, "rollout": rollout, "seed": ORDERED}
        config = stored_settings(**{**own, "failures__steps": 99, **changes})
        editor = open_editor(tiny_editor_path, pixels=pixels)
        return Trainer(config, editor, Unasked(), GroupDataset(folder), tmp_path / out)

    return build


def test_a_step_on_groups_that_were_kept_is_the_step_that_kept_them(make: Make, again: Any) -> None:
    online = saved(make)
    offline = again(online.out / "groups", steps=1)
    offline.train()
    (there,), (here,) = (read_lines(each.out / "metrics.jsonl") for each in (online, offline))
    for name in ("loss", "loss_pos", "loss_neg", "kl", "grad_norm", "update_norm", "edits", "groups_kept", "unscored"):
        assert here[name] == there[name], name
    assert there["reward_parts"]["other"] and here["reward_mean"] is None and "read" in here["seconds"]
    for one, other in zip(online.params, offline.params, strict=True):
        assert torch.equal(one, other)


def test_other_algorithms_train_on_kept_groups_and_a_stopped_run_goes_on_exactly(
    make: Make, again: Any, tmp_path: Path
) -> None:
    folder = saved(make, steps=2).out / "groups"
    for name in ("dpo", "sft"):
        changes = {"algorithm": {"name": name, "timesteps_per_image": 2}, "steps": 3}
        again(folder, name, **changes).train()
        again(folder, f"{name}-parts", **changes).train(until=1)
        again(folder, f"{name}-parts", **changes).train()
        assert_same_run(tmp_path / name, tmp_path / f"{name}-parts")
        assert any(row["update_norm"] > 0 for row in read_lines(tmp_path / name / "metrics.jsonl"))


def test_a_run_that_is_stopped_keeps_the_same_files(make: Make, tmp_path: Path) -> None:
    saved(make, steps=2)
    saved(make, "parts", steps=1)
    saved(make, "parts", steps=2)
    files = sorted((tmp_path / "online" / "groups").glob("*.safetensors"))
    assert [file.name for file in files] == [f"step_00000{s}-00{g}-000.safetensors" for s in (1, 2) for g in (0, 1)]
    for file in files:
        assert file.read_bytes() == (tmp_path / "parts" / "groups" / file.name).read_bytes()
    pictures = [*(tmp_path / "online" / "groups" / "pictures").iterdir()]
    assert len(pictures) == 4  # one of each item that was drawn


def test_what_is_kept_is_what_was_made(make: Make) -> None:
    trainer = make(**SAVED)
    groups = [*trainer.collector.collect(trainer.rollout, Stopwatch(), trainer.progress)]
    data = GroupDataset(trainer.out / "groups")
    assert len(data) == len(groups) == 2
    for index, group in enumerate(groups):
        stored, sample = data.group(index), data[index]
        assert torch.equal(stored.latents, group.rollout.latents) and torch.equal(stored.levels, group.rollout.levels)
        assert group.rewards is not None
        assert torch.equal(stored.rewards, group.rewards) and stored.reasons == group.reasons
        assert (sample.key, sample.instruction, sample.task) == (
            group.sample.key,
            group.sample.instruction,
            group.sample.task,
        )
        assert np.array_equal(np.array(sample.source), np.array(group.sample.source))


def split(file: Path, at: int) -> None:
    """Part a file as two ranks would have written it, and leave it."""
    with safe_open(file, "pt") as whole:
        metadata, tensors = whole.metadata(), {name: whole.get_tensor(name) for name in ("latents", "levels")}
    facts = json.loads(metadata["group"])
    for first, part in ((0, slice(0, at)), (at, slice(at, None))):
        own = {**facts, "rewards": facts["rewards"][part], "reasons": facts["reasons"][part]}
        own["parts"] = {name: values[part] for name, values in facts["parts"].items()}
        own["parts_reasons"] = {name: values[part] for name, values in facts["parts_reasons"].items()}
        name = file.name.replace("-000.safetensors", f"-{first:03d}.safetensors")
        some = {"latents": tensors["latents"][part].clone(), "levels": tensors["levels"]}
        save_file(some, file.with_name(name), metadata={"group": json.dumps(own)})


def test_parts_of_several_ranks_are_one_group_and_those_of_another_number_of_ranks_do_not_count(make: Make) -> None:
    folder = saved(make).out / "groups"
    before = GroupDataset(folder).group(0)
    whole = (folder / "step_000001-000-000.safetensors").read_bytes()
    split(folder / "step_000001-000-000.safetensors", 2)
    for content in (None, whole):  # two parts; then one process has gone on
        if content:
            (folder / "step_000001-000-000.safetensors").write_bytes(content)
        after = GroupDataset(folder).group(0)
        assert torch.equal(after.latents, before.latents) and after.reasons == before.reasons
        torch.testing.assert_close((after.rewards, after.parts), (before.rewards, before.parts), equal_nan=True)


def test_groups_that_do_not_fit_are_refused_in_one_line(make: Make, again: Any, tmp_path: Path) -> None:
    folder = saved(make).out / "groups"
    with pytest.raises(UserError, match=r"holds groups of 3 edits; set rollout\.group_size=3"):
        again(folder, rollout__group_size=4)
    with pytest.raises(UserError, match=r"have latents of \(4, 16\), this editor's \(16, 16\)"):
        again(folder, pixels=64 * 64).train_step(None, Interrupts())
    with pytest.raises(UserError, match="holds no groups"):
        GroupDataset(tmp_path)
    (folder / "step_000001-001-000.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no group, or damaged"):
        GroupDataset(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": {"name": "grpo"}}, 'algorithm "grpo" needs the path of a sampler'),
        ({"rollout__save_groups": True}, "none is made or judged; leave rollout.save_groups out"),
        ({"judge": {"path": "red"}, "evaluation": {"split": 0.5}}, "name a folder in evaluation.data"),
    ],
)
def test_what_makes_no_sense_on_groups_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stored_settings(data={"kind": "groups", "path": "x"}, **{"algorithm": {"name": "nft"}, **changes})


def test_ranks_that_share_a_group_may_write_its_source_at_one_time(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in range(40)]
    ranks = [GroupFolder(tmp_path, None) for _ in range(8)]
    with ThreadPoolExecutor(len(ranks)) as pool:
        names = [{*pool.map(lambda rank, each=picture: rank.picture(each), ranks)} for picture in pictures]
    assert [len(each) for each in names] == [1] * 40
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set().union(*names)
