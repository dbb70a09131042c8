"""The wheel, installed into a clean environment outside of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import editr1

SMALL = """
from editr1.cli import demo
from editr1.cli.main import main
demo.HELD_OUT, demo.EVAL_STEPS = 9, 2
load = demo.load_config
sizes = ["rollout.groups_per_step=2", "rollout.group_size=2", "rollout.steps=2", "data.size=8", "steps=1"]
demo.load_config = lambda preset, overrides: load(preset, [*overrides, *sizes])
main()
"""


@pytest.mark.slow
def test_the_wheel_runs_the_demo_outside_of_the_repository(built: Path, tmp_path: Path) -> None:
    home = tmp_path / "clean"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*pip, str(next(built.glob("*.whl")))], check=True)
    (place,) = home.glob("lib/python*/site-packages")
    # the packages that editr1 needs are those of the tests; the editable editr1 beside them is no path of its own
    (place / "others.pth").write_text(sysconfig.get_path("purelib"))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        done = subprocess.run([*arguments], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run(str(python), "-c", "import editr1; print(editr1.__file__)").strip()).is_relative_to(home)
    assert run(str(home / "bin" / "editr1"), "--version") == f"editr1 {editr1.__version__}\n"
    said = run(str(python), "-c", SMALL, "demo", "--out", "run")
    assert "5/5" in said and (tmp_path / "run" / "report.html").stat().st_size > 10_000
