"""`eval imgedit` and `eval gedit` call the denoiser as the stock pipeline does when its user calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel, QwenImageTransformer2DModel
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from editr1.cli import main as cli
from editr1.data.seeds import item_seed
from editr1.editors.editor import noise_generator
from editr1.editors.one_frame import skip_absent_frames
from editr1.evaluation.benchmarks.base import Item
from editr1.evaluation.benchmarks.gedit import GEdit
from editr1.evaluation.benchmarks.imgedit import ImgEdit
from tests.editors.conftest import BUILDERS
from tests.evaluation.benchmarks.folders import gedit_folder, imgedit_folder

STEPS = 2
KINDS = {"QwenImageEditPlusPipeline": QwenImageTransformer2DModel, "FluxKontextPipeline": FluxTransformer2DModel}
OWN: dict[str, dict[str, Any]] = {  # guidance as the pipelines' documentation has it, and the words that it needs
    "QwenImageEditPlusPipeline": {"true_cfg_scale": 4.0, "negative_prompt": " "},
    "FluxKontextPipeline": {"guidance_scale": 3.5},
}
FOLDERS: dict[str, tuple[Any, Any]] = {"imgedit": (imgedit_folder, ImgEdit), "gedit": (gedit_folder, GEdit)}


@contextmanager
def recorded_calls(kind: type[torch.nn.Module]) -> Iterator[list[dict[str, Any]]]:
    """The arguments of every call of a denoiser of this class."""
    calls: list[dict[str, Any]] = []
    forward = kind.forward

    def record(self: torch.nn.Module, **arguments: Any) -> Any:
        calls.append({name: v.clone() if isinstance(v, Tensor) else v for name, v in arguments.items()})
        return forward(self, **arguments)

    with patch.object(kind, "forward", record):
        yield calls


def stock_calls(path: Path, name: str, item: Item, shape: dict[str, int]) -> tuple[list[dict[str, Any]], Image.Image]:
    """What a user's own call of the pipeline gives its denoiser, and the edit."""
    pipe = DiffusionPipeline.from_pretrained(path)
    skip_absent_frames(pipe.vae)  # as ours, whose results differ by rounding
    noise = noise_generator(item_seed(0, item.key), 0)
    sample = item.sample((item.original or item.source)())
    arguments = {"image": sample.source, "prompt": sample.instruction, "generator": noise, **OWN[name], **shape}
    if "tokenizer_2" in pipe.components:  # the tiny T5 takes fewer tokens than the pipeline's default of 512
        arguments["max_sequence_length"] = min(512, pipe.tokenizer_2.model_max_length)
    with recorded_calls(KINDS[name]) as calls:
        edit = pipe(**arguments, num_inference_steps=STEPS).images[0]
    return calls, edit


def assert_equal(one: Any, other: Any, name: str) -> None:
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), name
    else:
        assert one == other, name


@pytest.mark.long
@pytest.mark.parametrize("benchmark", FOLDERS)
@pytest.mark.parametrize("name", KINDS)
def test_a_benchmark_calls_the_denoiser_as_the_stock_pipeline_does_argument_by_argument(
    tmp_path: Path, name: str, benchmark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dimensions = plus.calculate_dimensions  # a 64th of the stock area, for both, as a test must be quick
    monkeypatch.setattr(plus, "calculate_dimensions", lambda area, ratio: dimensions(area / 64, ratio))
    path, out = tmp_path / "editor", tmp_path / "out"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BUILDERS[name]().save_pretrained(path)
    build, kind = FOLDERS[benchmark]
    data = build(tmp_path / "data", items=1)
    for picture in data.rglob("*.png"):  # longer than it is high
        Image.open(picture).resize((96, 64)).save(picture)
    options = ["--data", data, "--editor", path, "--judge", "toy", "--steps", STEPS, "--limit", 1, "--out", out]
    with recorded_calls(KINDS[name]) as calls:
        result = CliRunner().invoke(cli.app, ["eval", benchmark, *map(str, options)])
    assert calls, result.output
    item = kind(data, 1, "toy").items[0]
    source = (item.original or item.source)()
    shape = {"width": source.width, "height": source.height} if name == "FluxKontextPipeline" else {}
    want, edit = stock_calls(path, name, item, shape)
    assert len(want) == (2 * STEPS if "true_cfg_scale" in OWN[name] else STEPS)
    assert len(calls) % len(want) == 0
    for own, stock in zip(calls, want, strict=False):  # GEdit has the item in two languages
        assert own.keys() == stock.keys()
        for argument, value in stock.items():
            assert_equal(own[argument], value, argument)
    assert Image.open(out / item.edit_file).tobytes() == edit.tobytes()
    used = json.loads((out / "results.json").read_text())["made_with"]["guidance"]
    assert used == next(scale for scale in OWN[name].values() if isinstance(scale, float))
