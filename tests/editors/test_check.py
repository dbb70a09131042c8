"""An editor's files, area and size are checked from its configs and headers, without its weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from editr1.config.settings import EditorConfig, MemoryConfig
from editr1.editors.check import bytes_on_device, check_editor
from editr1.editors.open import open_editor
from editr1.editors.probe import probe
from editr1.errors import UserError
from tests.tiny import PIXELS


def test_the_weights_are_those_of_the_loaded_pipeline(tiny_editor_path: Path) -> None:
    family, weights = check_editor(EditorConfig(path=str(tiny_editor_path)))
    pipe = open_editor(tiny_editor_path, pixels=PIXELS).pipe
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert family is not None and family.pipeline == type(pipe).__name__
    assert weights == {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    total, denoiser = sum(weights.values()), weights["transformer"]
    assert bytes_on_device(weights, MemoryConfig(), torch.bfloat16) == 2 * total
    assert bytes_on_device(weights, MemoryConfig(offload=True), torch.float32) == 4 * denoiser
    assert bytes_on_device(weights, MemoryConfig(offload=True, quantize="int8"), torch.float32) == denoiser


def test_weights_that_are_spread_count_for_the_share_of_one_process() -> None:
    weights = {"transformer": 20 * 10**9, "text_encoder": 8 * 10**9, "vae": 10**8}
    assert bytes_on_device(weights, MemoryConfig(), torch.bfloat16) == 56.2e9
    assert bytes_on_device(weights, MemoryConfig(), torch.bfloat16, shard=8) == 5e9 + 2e9 + 0.2e9
    cached = MemoryConfig(cache=Path("cache"))  # text encoders stay whole
    assert bytes_on_device(weights, cached, torch.bfloat16, shard=8) == 5e9 + 16e9 + 0.2e9
    assert bytes_on_device(weights, MemoryConfig(offload=True), torch.bfloat16, shard=8) == 5e9


def test_a_component_or_weights_that_are_not_there_are_told(tiny_editor_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "editor"
    shutil.copytree(tiny_editor_path, copy)
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"vae holds no safetensors file"):
        check_editor(EditorConfig(path=str(copy)))
    shutil.rmtree(copy / "vae")
    with pytest.raises(UserError, match=r"lacks the folder vae: copy all files"):
        check_editor(EditorConfig(path=str(copy)))


def test_too_small_an_area_is_one_line_in_the_check_the_editor_and_the_probe(tiny_editor_path: Path) -> None:
    settings = EditorConfig(path=str(tiny_editor_path), pixels=10)
    for refused in (
        lambda: check_editor(settings),
        lambda: open_editor(tiny_editor_path, pixels=10),
        lambda: probe(open_editor(tiny_editor_path).pipe, pixels=10),
    ):
        with pytest.raises(UserError, match=r"pixels=10: .* makes pictures of at least (16x16|32x32)"):
            refused()
