"""benchmarks/gpu.py with small models of the same configurations on the CPU: its counts, its file, its failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.benchmarks.scripts import script

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    """The benchmark, imported as `python benchmarks/gpu.py` does."""
    with script("gpu") as module:
        yield module


def rows_of(file: Path, editor: str) -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["editors"][editor]
    return rows


@pytest.mark.parametrize("editor", ["qwen-image-edit-2511", "flux.1-kontext", "flux.2-klein-4b"])
def test_each_editor_is_trained_and_every_part_of_its_step_is_measured(
    gpu: ModuleType, editor: str, tmp_path: Path
) -> None:
    setting = gpu.Setting(micro_batch=3)
    row = rows_of(gpu.run([editor], [setting], gpu.TINY, CPU, tmp_path), editor)[str(setting)]
    edits, steps, levels = 2, 5, 4
    assert row["rows"] == {"denoise": edits * steps, "train": 3 * edits * levels, "gradient": edits * levels}
    seconds = row["seconds"]
    assert all(seconds[part] > 0 for part in ("text", "encode", "denoise", "decode", "train", "rest"))
    assert row["images_per_gpu_second"]["step"] == edits / seconds["step"]
    flops, rate = row["flops"], row["measured_with"]["matrix_product_flops_per_second"]
    assert flops["denoise"] == edits * steps * flops["row_forward"]
    assert flops["train"] == edits * levels * (3 * flops["row_forward"] + flops["row_backward"])
    assert row["mfu"]["train"] == pytest.approx(flops["train"] / seconds["train"] / rate)
    assert row["measured_with"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert row["measured_with"]["tiny"] and row["peak_bytes"] == {}


def test_a_filled_cache_saves_the_text_encoders_time(gpu: ModuleType, tmp_path: Path) -> None:
    file = gpu.run(["flux.2-klein-4b"], [gpu.Setting(), gpu.Setting(cache=True)], gpu.TINY, CPU, tmp_path)
    rows = rows_of(file, "flux.2-klein-4b")
    with_cache = rows["bf16 checkpointing cache micro_batch=12"]["seconds"]["text"]
    assert with_cache < rows["bf16 checkpointing micro_batch=12"]["seconds"]["text"] / 2


def test_a_setting_out_of_memory_is_written_down_and_the_next_is_measured(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = gpu.measure

    def full(name: str, setting: Any, *others: Any) -> dict[str, Any]:
        if not setting.checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        row: dict[str, Any] = measure(name, setting, *others)
        return row

    monkeypatch.setattr(gpu, "measure", full)
    asked = [gpu.Setting(checkpointing=False), gpu.Setting(), gpu.Setting("nf4")]
    rows = rows_of(gpu.run(["flux.1-kontext"], asked, gpu.TINY, CPU, tmp_path), "flux.1-kontext")
    assert rows["bf16 micro_batch=12"]["failed"] == "out of memory"
    assert rows["bf16 checkpointing micro_batch=12"]["seconds"]["step"] > 0
    if not torch.cuda.is_available():
        assert rows["nf4 checkpointing micro_batch=12"]["failed"].startswith("memory.quantize='nf4'")
    assert "bf16 micro_batch=12: out of memory" in capsys.readouterr().out


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
def test_an_int8_denoiser_takes_less_memory_and_is_trained(gpu: ModuleType, tmp_path: Path) -> None:
    file = gpu.run(["flux.1-kontext"], [gpu.Setting(), gpu.Setting("int8")], gpu.TINY, CPU, tmp_path)
    whole, small = rows_of(file, "flux.1-kontext").values()
    assert small["bytes"]["transformer"] < 0.6 * whole["bytes"]["transformer"]
    assert small["bytes"]["vae"] == whole["bytes"]["vae"] and small["rows"] == whole["rows"]


def test_results_of_other_settings_stay_in_the_file(gpu: ModuleType, tmp_path: Path) -> None:
    old = tmp_path / "tiny-cpu.json"
    old.write_text(json.dumps({"editors": {"flux.1-kontext": {"other": {"failed": "out of memory"}}}}))
    file = gpu.run(["flux.1-kontext"], [gpu.Setting("nf4")], gpu.TINY, CPU, tmp_path)
    assert file == old and rows_of(file, "flux.1-kontext").keys() == {"other", "nf4 checkpointing micro_batch=12"}


@pytest.mark.parametrize(
    ("editor", "billions"),
    [
        ("qwen-image-edit-2509", 20.43),
        ("qwen-image-edit-2511", 20.43),
        ("flux.1-kontext", 11.90),
        ("flux.2-klein-4b", 3.88),
    ],
)
def test_shipped_sizes_are_those_of_the_published_denoisers(gpu: ModuleType, editor: str, billions: float) -> None:
    denoiser = gpu.meta_denoiser(editor, gpu.Size(), torch.bfloat16)
    assert sum(weight.numel() for weight in denoiser.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)


def test_settings_cover_each_number_format_and_switch_and_a_micro_batch_of_1_to_60(gpu: ModuleType) -> None:
    asked = [*gpu.settings()]
    assert len({str(setting) for setting in asked}) == len(asked) == 33
    for weights in ("bf16", "int8", "nf4"):
        of_it = [setting for setting in asked if setting.weights == weights]
        for switch in ("checkpointing", "compile", "cache", "autocast", "tf32"):
            assert {getattr(setting, switch) for setting in of_it} == {False, True}
        assert {setting.micro_batch for setting in of_it} == {1, 3, 6, 12, 30, 60}


def test_without_a_gpu_it_says_so_in_a_line_and_ends_with_2(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "benchmarks/gpu.py: there is no GPU here; --tiny tries it with small models\n"


def test_number_formats_of_float32_products_reach_the_run(gpu: ModuleType, tmp_path: Path) -> None:
    setting = gpu.Setting(autocast=True, tf32=True)
    config = gpu.config_of("flux.1-kontext", setting, gpu.TINY, CPU, tmp_path)
    assert config.adapter.autocast and config.memory.tf32
    assert str(setting) == "bf16 checkpointing autocast tf32 micro_batch=12"
    row = rows_of(gpu.run(["flux.1-kontext"], [setting], gpu.TINY, CPU, tmp_path), "flux.1-kontext")[str(setting)]
    assert row["failed"].startswith("memory.tf32: cpu here has no TF32")
