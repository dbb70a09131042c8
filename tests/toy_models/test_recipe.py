"""The whole build, in miniature: every phase runs, and what it leaves loads and can be measured."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from editr1.editors.open import open_editor
from editr1.judges.models.local import TransformersModel
from editr1.toy.world import ToyDataset
from editr1.toy_models import recipe as run
from editr1.toy_models import train_editor as editor_build


@pytest.mark.long
def test_a_build_of_few_steps_leaves_models_that_load_and_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"VAE_STEPS": 1, "EDITOR_STEPS": 2, "EDITOR_BATCH": 18, "JUDGE_BATCH": 12}.items():
        monkeypatch.setattr(run, name, value)  # of the two steps one has clean pairs, one noisy ones
    for name, value in {"LOOK": 1, "ALONE": 2, "FIRST": 3, "STEPS": 4}.items():
        monkeypatch.setattr(run, f"JUDGE_{name}", value)
    monkeypatch.setattr(run, "PUSH_STEPS", 1)
    for name in ("SAMPLE", "PUSHED", "VERIFY"):
        monkeypatch.setattr(run, f"{name}_ITEMS", 9)
    monkeypatch.setattr(editor_build, "FIRST", 32)
    # On a CPU without bfloat16 instructions Muon's five iterations take longer than all the rest of a step.
    monkeypatch.setattr(torch.optim, "Muon", partial(torch.optim.Muon, ns_steps=1))
    run.train_all(tmp_path, seed=0, level="small")
    assert {path.stem for path in (tmp_path / "samples").glob("*.json")} == {"base", "pushed"}
    weights = tmp_path / "weights"
    for name, limit in {"qwen-image-edit": 20e6, "flux-kontext": 15e6}.items():
        editor = open_editor(weights / name, pixels=64 * 64)
        rollout = editor.rollout(ToyDataset("rl", 1)[0], 2, steps=2, seed=0)
        editor.self_check(rollout)
        assert rollout.images[0].size == (64, 64) and rollout.latents.shape == (2, 16, 64)
        assert not [path for path in (weights / name).rglob("*.json") if str(tmp_path) in path.read_text()]
        assert sum(path.stat().st_size for path in (weights / name).rglob("*")) < limit
    judge = TransformersModel(weights / "judge")
    assert [judge.token_id(digit) for digit in "012345"] == judge.processor.tokenizer.convert_tokens_to_ids(
        list("012345")
    )
    figures = json.loads((weights / "verify.qwen-image-edit.json").read_text())
    assert set(figures) == {"editor", "vae", "judge"} and len(figures["judge"]["by_task"]) == 9
    assert sum(path.stat().st_size for path in (weights / "judge").rglob("*")) < 20e6
