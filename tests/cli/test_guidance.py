"""The guidance that is asked for, or that of the editor, reaches the denoiser, whatever makes the edits."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image
from typer.testing import CliRunner

from editr1.cli import main as cli

EDITOR = ("--editor", "toy:flux-kontext", "--steps", "2")
COMMANDS = {
    "edit": ("edit", "source.png", "remove the red ball", *EDITOR, "--out", "edit.png"),
    "eval": ("eval", "toy", *EDITOR, "--items", "1", "--edits", "1", "--out", "out"),
    "best of 2": ("eval", "toy", *EDITOR, "--items", "1", "--best-of", "2", "--out", "out"),
}


@pytest.mark.parametrize("guidance", [None, 3.25])
@pytest.mark.parametrize("command", COMMANDS)
def test_guidance_reaches_the_denoiser_and_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, guidance: float | None
) -> None:
    scales: list[torch.Tensor] = []
    forward = FluxTransformer2DModel.forward

    @functools.wraps(forward)
    def record(self: FluxTransformer2DModel, *args: Any, **kwargs: Any) -> Any:
        scales.append(kwargs["guidance"])
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(FluxTransformer2DModel, "forward", record)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "red").save("source.png")
    options = [] if guidance is None else ["--guidance", str(guidance)]
    result = CliRunner().invoke(cli.app, [*COMMANDS[command], *options])
    assert result.exit_code == 0, result.output
    used = guidance or 2.5
    assert len(scales) == 2 and all((scale == used).all() for scale in scales)
    if command != "edit":
        assert json.loads(Path("out/results.json").read_text())["made_with"]["guidance"] == used
        assert f"guidance {used}" in " ".join(result.output.split())
