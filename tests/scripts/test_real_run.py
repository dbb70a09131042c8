"""Sizes of real denoisers, counted without their weights."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "real_run.py"


def test_counts_are_those_of_the_published_models_and_lie_between_the_bounds_of_their_layers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = importlib.util.spec_from_file_location("real_run", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for build, billions in ((module.qwen, 20.4), (module.kontext, 11.9)):
        parameters, forward, backward = module.count(build)
        assert parameters / 1e9 == pytest.approx(billions, abs=0.1)
        tokens = 2 * module.SIDE**2 + module.TEXT
        assert (
            forward < 1.5 * 2 * parameters * tokens
        )  # a multiplication and an addition per weight and token, attention
        assert 0.9 < backward / forward < 1.3  # frozen weights: gradients of the activations alone
    module.main()
    said = capsys.readouterr().out
    assert "Qwen-Image-Edit: 20.4 billion parameters, 41 GB in bfloat16" in said
    readme = (SCRIPT.parents[1] / "README.md").read_text(encoding="utf-8")
    times = re.compile(r"(\d+) minutes on one H100 .*?, (\d+) with gradient checkpointing: (\d+) hours for 100 steps")
    (*qwen, hours), (*kontext, other_hours) = times.findall(said)
    assert f"{qwen[0]} minutes on one H100 that reaches 40% of its peak, {qwen[1]} with gradient" in readme
    assert f"steps take {hours} hours on one" in readme
    assert f"{' or '.join(kontext)} minutes, {other_hours} hours" in readme
    document = (SCRIPT.parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert [line for line in said.splitlines()[2:] if line and line not in document] == []
