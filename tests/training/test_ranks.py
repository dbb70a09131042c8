"""Several ranks make the run that one process makes: real torchrun, gloo, a tiny diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from editr1.files import read_lines
from editr1.training.checkpoint import latest
from editr1.training.groups import GroupDataset
from tests.editors.conftest import pipeline_path as pipeline_path
from tests.ranks import torchrun
from tests.training.scenarios import SCENARIOS, trainer_of

SAME = ("groups_kept", "dropped", "unscored", "reasons", "parts_unscored", "parts_reasons", "banned", "prompts")
FIRST = (
    *SAME,
    "reward_mean",
    "reward_std_within",
    "reward_std_all",
    "reward_by_task",
    "reward_parts",
    "scout_reward",
    "scout_unscored",
    "scout_order",
    "outside",
    "outside_by_task",
)
LAYOUTS = (
    "FluxKontextPipeline",  # the source behind the edit in one sequence of packed latents
    "QwenImageEditPipeline",  # the source goes to the text encoder too
    "Kandinsky5I2IPipeline",  # the source beside the edit in its channels
    "OmniGenPipeline",  # text and pictures in one transformer
)
ON_FOUR = ("lora", "full", "one group", "some dropped", "a judge that compares")


@pytest.fixture(scope="module")
def alone(tiny_editor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenarios by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in SCENARIOS:
        trainer_of(name, folder / name, tiny_editor_path).train()
    return folder


@pytest.fixture(scope="module", params=[2, 4])
def together(request: Any, tiny_editor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenarios by several ranks."""
    folder = tmp_path_factory.mktemp(f"ranks{request.param}")
    names = [name for name in SCENARIOS if request.param == 2 or name in ON_FOUR]
    result = torchrun(request.param, "tests.training.scenarios", str(folder), str(tiny_editor_path), *names)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_a_run_goes_on_with_another_number_of_ranks(alone: Path, tiny_editor_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "lora"
    trainer_of("lora", out, tiny_editor_path).train(until=1)
    result = torchrun(2, "tests.training.scenarios", "--until=2", str(tmp_path), str(tiny_editor_path), "lora")
    assert result.returncode == 0, result.stderr[-3000:]
    trainer_of("lora", out, tiny_editor_path).train()
    rows = read_lines(out / "metrics.jsonl")
    assert ["imbalance" in row for row in rows] == [False, True, False]
    for row, other in zip(rows, read_lines(alone / "lora" / "metrics.jsonl"), strict=True):
        assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
    expected = weights(alone / "lora")
    assert (weights(out) - expected).norm() <= 1e-5 * expected.norm()


def test_ranks_go_on_from_the_newest_whole_checkpoint_and_one_of_them_tells_it(
    tiny_editor_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lora"
    for step in (1, 2):
        trainer_of("lora", out, tiny_editor_path).train(until=step)
    scenario = ("tests.training.scenarios", str(tmp_path), str(tiny_editor_path), "lora")
    checkpoints = out / "checkpoints"
    flip(checkpoints / "step_000002" / "training.safetensors")
    result = torchrun(2, *scenario)
    assert result.returncode == 0, result.stderr[-3000:]
    told = [line for line in result.stderr.splitlines() if line.startswith("editr1: ")]
    assert len(told) == 1 and "training.safetensors: its content is not what was written" in told[0]
    names = sorted(path.name for path in checkpoints.iterdir())
    assert names == ["damaged_step_000002", "step_000001", "step_000003"]
    assert [row["step"] for row in read_lines(out / "metrics.jsonl")] == [1, 2, 3]
    for name in ("step_000001", "step_000003"):
        flip(checkpoints / name / "training.safetensors")
    result = torchrun(2, *scenario)
    assert result.returncode != 0 and f"none of the checkpoints in {checkpoints} is whole" in result.stderr
    assert sorted(path.name for path in checkpoints.iterdir()) == names


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


def weights(out: Path, name: str = "policy") -> torch.Tensor:
    folder = latest(out / "checkpoints")
    assert folder is not None
    tensors = [load_file(path) for path in sorted((folder / name).glob("*.safetensors"))]
    return torch.cat([each[key].double().flatten() for each in tensors for key in sorted(each)])


def assert_ranks_made_the_run_of_one(alone: Path, together: Path, name: str) -> None:
    """The same edits and decisions, and nearly the same weights, in `alone`/name and `together`/name."""
    one, several = (read_lines(folder / name / "metrics.jsonl") for folder in (alone, together))
    assert len(one) == len(several) == 3
    for key in FIRST:  # the edits of the first step are equal bit for bit, so are their rewards
        assert several[0].get(key) == one[0].get(key), key
    for row, other in zip(one, several, strict=True):
        assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
        assert 0 <= other["imbalance"] < 1 and set(other["seconds"]) == {*row["seconds"], "exchange"}
    if (alone / name / "groups").exists():
        whole, parts = (GroupDataset(folder / name / "groups").group(0) for folder in (alone, together))
        assert torch.equal(whole.latents, parts.latents)
        torch.testing.assert_close(whole.parts, parts.parts, equal_nan=True, rtol=0, atol=0)
    picture = Path("samples", "step_000001.png")
    assert (together / name / picture).read_bytes() == (alone / name / picture).read_bytes()
    for policy in ("policy", "old", "ema"):
        expected = weights(alone / name, policy)
        assert (weights(together / name, policy) - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name", SCENARIOS)
def test_ranks_make_the_run_of_one_process(alone: Path, together: Path, name: str) -> None:
    if not (together / name).exists():
        pytest.skip("made on two ranks")
    assert_ranks_made_the_run_of_one(alone, together, name)


@pytest.mark.slow
@pytest.mark.parametrize("editor", LAYOUTS)
def test_two_ranks_make_the_run_of_one_process_with_editors_of_other_layouts(
    editor: str, pipeline_path: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, pixels, names = pipeline_path(editor), 64 * 96, ("lora", "grpo", "dpo")
    for name in names:
        trainer_of(name, tmp_path / "alone" / name, folder, pixels=pixels).train()
    words = (f"--pixels={pixels}", str(tmp_path / "ranks"), str(folder), *names)
    result = torchrun(2, "tests.training.scenarios", *words)
    assert result.returncode == 0, result.stderr[-3000:]
    for name in names:
        assert_ranks_made_the_run_of_one(tmp_path / "alone", tmp_path / "ranks", name)
