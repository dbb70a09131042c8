"""The picture for the README, made by its command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image as Images

from tests.report.synthetic import write_demo, write_metrics

SCRIPT = Path(__file__).parents[2] / "scripts/demo_figure.py"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)


def test_picture_of_a_demo_holds_its_edits(tmp_path: Path) -> None:
    write_demo(tmp_path / "run")
    done = command(tmp_path / "run", tmp_path / "demo.png")
    assert done.returncode == 0, done.stderr
    with Images.open(tmp_path / "demo.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (616, 1540)
    lilac = np.abs(pixels - [200, 185, 240]).max(-1) < 35  # ground of the synthetic scenes
    assert lilac[:, :500].mean() < 0.01 < 0.15 < lilac[:, 500:].mean()


def test_run_without_evaluation_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    done = command(tmp_path / "run", tmp_path / "demo.png")
    assert done.returncode == 1
    assert "holds no results.json: give the folder of a finished `editr1 demo`" in done.stderr
    assert not (tmp_path / "demo.png").exists()
