"""Weights spread over ranks give what the whole weights give."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from editr1.editors.open import open_config_editor
from editr1.editors.sharding import open_mesh
from editr1.errors import UserError
from tests.editors import rank
from tests.ranks import launcher
from tests.ranks import run_ranks as launch
from tests.tiny import build_once

FAMILIES = ("QwenImageEditPlusPipeline", "FluxKontextPipeline")
Paths = Callable[[str], Path]


def run_ranks(program: Path, *arguments: object, ranks: int = 2) -> None:
    """Run a program on several gloo ranks."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = launch([*launcher(ranks), str(program), *map(str, arguments)], env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, pipeline_path: Paths) -> Path:
    """What the two ranks of tests/editors/rank.py give for each family."""
    folders = [pipeline_path(name) for name in FAMILIES]
    return build_once(
        tmp_path_factory, "sharded", lambda out: out.mkdir() or run_ranks(Path(rank.__file__), out, *folders)
    )


@pytest.mark.long
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_edits_velocities_and_gradients_of_a_sharded_lora_are_those_of_the_whole_one(
    results: Path, pipeline_path: Paths, name: str, checkpointing: bool
) -> None:
    """On each rank, which makes other edits than its neighbour; the policies are switched before the backward pass."""
    for number in range(rank.RANKS):
        run = rank.config(pipeline_path(name), memory={"gradient_checkpointing": checkpointing})
        want = rank.work(open_config_editor(run), seed=number)
        got = load_file(results / f"{name}-{checkpointing}-{number}.safetensors")
        assert any("lora_B" in key for key in want)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_velocities_and_gradients_of_sharded_full_policies_are_those_of_whole_ones(
    results: Path, pipeline_path: Paths, name: str, gathered: bool
) -> None:
    """The gradient is the sum over the ranks, whose edits differ; "default" is as before after all switches."""
    wholes = [rank.work(open_config_editor(rank.config(pipeline_path(name))), n, "full") for n in range(rank.RANKS)]
    gradients = [key for key in wholes[0] if f"{key} after" in wholes[0]]
    assert len(gradients) > 20
    for number, want in enumerate(wholes):
        got = load_file(results / f"{name}-full-{gathered}-{number}.safetensors")
        want = {**want, **{key: torch.stack([each[key] for each in wholes]).sum(0) for key in gradients}}
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        assert (want["default"] - want["old"]).abs().max() > 1e-3
        assert (want["start"] - want["default"]).abs().max() == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_each_rank_holds_half_of_the_weights_and_the_class_keeps_its_name(
    results: Path, pipeline_path: Paths, name: str
) -> None:
    whole = open_config_editor(rank.config(pipeline_path(name)))
    total = rank.sharded_bytes(whole.denoiser)
    for number in range(rank.RANKS):
        facts = json.loads((results / f"{name}-False-{number}.json").read_text())
        assert facts["name"] == type(whole.denoiser).__name__
        assert facts["sharded"]
        assert not whole.is_sharded
        assert total / 2 <= facts["bytes"] + 64 <= 1.01 * total / 2 + 64


def test_ranks_that_are_no_multiple_of_shard_are_refused() -> None:
    assert open_mesh(3, 1, "cpu") is None
    with pytest.raises(UserError, match=r"parallel.shard=2 .* and 3 is no multiple of it; .*--nproc-per-node 2"):
        open_mesh(3, 2, "cpu")


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"memory": {"quantize": "int8"}}, "memory.quantize='int8'"),
        ({"memory": {"quantize": "nf4"}}, "memory.quantize='nf4'"),
    ],
)
def test_weights_that_cannot_be_spread_are_refused(sections: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=rf"parallel.shard=2 .*{problem}"):
        rank.config(Path("unused"), parallel={"shard": 2}, **sections)


@pytest.mark.long
def test_each_of_two_ranks_takes_less_memory_to_load_an_editor_than_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each rank reads its own half of the denoiser."""
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    table = run_path(str(benchmarks / "sharding.py"))["measure"](200, (1, 2))
    assert table["1"]["peak"] > table["1"]["weights"]  # the measurement sees the weights
    assert table["2"]["weights"] == pytest.approx(table["1"]["weights"] / 2, rel=0.01)
    assert table["2"]["ratio"] < 0.9  # one that reads all and keeps half takes as much as one process
