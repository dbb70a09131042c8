"""Sampled = trained: what a session tells of replay, trained layers and gradients, and keeps for the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from editr1.training.self_check import SelfCheck, gradient_words, silence, silent_modules
from editr1.training.trainer import Trainer
from tests.training.runs import Make


def record_of(trainer: Trainer) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((trainer.out / "self_check.json").read_text())
    return record


def linear_names(trainer: Trainer) -> set[str]:
    modules = trainer.editor.denoiser.named_modules()
    return {name for name, module in modules if isinstance(module, nn.Linear) and ".lora_" not in name}


def test_a_healthy_run_tells_and_keeps_all_three_figures(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make(steps=2)
    trainer.train()
    adapted = {name.partition(".lora_")[0] for name in trainer.names}
    record = record_of(trainer)
    assert (record["replay_error"], record["trained"], record["layers"], record["steps"]) == (
        0.0,
        len(adapted),
        len(linear_names(trainer)),
        2,
    )
    assert record["silent"] == []
    words = capsys.readouterr().err
    assert f"sampled = trained: replay error 0, {len(adapted)} of {record['layers']} layers are trained" in words
    assert "every trained module has a gradient" in words and "warning" not in words


def test_full_training_trains_every_layer(make: Make) -> None:
    trainer = make(steps=1, adapter__mode="full")
    trainer.train()
    assert record_of(trainer)["trained"] == record_of(trainer)["layers"] == len(linear_names(trainer))


def test_a_module_that_is_cut_off_is_named_in_a_warning(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make(steps=2)
    name = next(name for name in trainer.names if ".0." in name and "lora_A" in name).partition(".lora_")[0]
    module = trainer.editor.denoiser.get_submodule(name)
    module.register_forward_hook(lambda layer, inputs, output: output.detach())
    trainer.train()
    record = record_of(trainer)
    assert record["silent"] == [name]
    assert (
        f"warning: 1 ({name}) of the {record['modules']} trained modules had no gradient in the first 2 steps"
        in capsys.readouterr().err
    )


def test_gradients_are_those_of_the_first_steps_of_a_session_and_told_once(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editr1.training.self_check.STEPS", 2)
    trainer = make(steps=4)
    trainer.train(until=1)
    assert record_of(trainer)["steps"] == 0
    trainer.train(until=2)
    assert record_of(trainer)["steps"] == 2
    trainer.train()
    assert record_of(trainer)["steps"] == 2
    assert capsys.readouterr().err.count("sampled = trained") == 2


def test_silent_modules_are_told_from_dead_ends_of_the_last_block() -> None:
    norms = {
        "blocks.0.attn.q.lora_A.weight": 0.0,  # as at the start of every run: B is 0
        "blocks.0.attn.q.lora_B.weight": 1.0,
        "blocks.0.attn.k.lora_A.weight": 0.0,
        "blocks.0.attn.k.lora_B.weight": 0.0,
        "blocks.1.attn.to_out.0.lora_B.weight": 2.0,
        "blocks.1.attn.add.lora_B.weight": 0.0,
        "head.weight": 1.0,
        "head.bias": 0.0,
    }
    found = silent_modules([*norms], [*norms.values()])
    assert found == {"modules": 5, "silent": ["blocks.0.attn.k"], "dead_ends": ["blocks.1.attn.add"]}


def test_without_any_gradient_nothing_is_a_dead_end() -> None:
    names = ["blocks.0.q.lora_B.weight", "blocks.1.q.lora_B.weight"]
    assert silent_modules(names, [0.0, 0.0]) == {"modules": 2, "silent": ["blocks.0.q", "blocks.1.q"], "dead_ends": []}


def test_words_say_nothing_of_gradients_before_they_are_known() -> None:
    assert gradient_words({"steps": 0}) == [] and silence({"steps": 0}) is None
    assert silence({"steps": 5, "modules": 5, "silent": []}) is None


class Policies:
    spread = True


class Editor:
    policies = Policies()


class Others:
    """A world whose other rank holds the other half of every gradient."""

    is_main = True

    def __init__(self, others: list[float]) -> None:
        self.others = others

    def gather(self, value: list[float], place: str) -> list[list[float]]:
        return [value, self.others]


@pytest.fixture
def one_rank(tmp_path: Path) -> Any:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_sharded_gradients_count_what_any_rank_holds(one_rank: Any, tmp_path: Path) -> None:
    whole = torch.tensor([[3.0, 4.0]])
    params = [distribute_tensor(torch.zeros(1, 2), one_rank, [Shard(0)]).requires_grad_() for _ in range(3)]
    params[0].grad = distribute_tensor(whole, one_rank, [Shard(0)])
    params[1].grad = distribute_tensor(torch.zeros(1, 2), one_rank, [Shard(0)])
    check = SelfCheck(Editor(), ["a.weight", "b.weight", "c.weight"], tmp_path, Others([0.0, 7.0, 0.0]))  # type: ignore[arg-type]
    check.watch(params)
    assert check._norms is not None and check._norms.tolist() == [5.0, 0.0, 0.0]
    assert check._gradients() == {"modules": 3, "silent": ["c"], "dead_ends": []}
