"""Every family as a tiny pipeline of its real class, built once per test run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.editors import tiny_bfl, tiny_bria, tiny_other, tiny_qwen
from tests.tiny import build_once

BUILDERS = {**tiny_qwen.BUILDERS, **tiny_bfl.BUILDERS, **tiny_bria.BUILDERS, **tiny_other.BUILDERS}


@pytest.fixture(scope="session")
def pipeline_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline, by its class name."""

    def build(name: str, folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            BUILDERS[name]().save_pretrained(folder)

    return lambda name: build_once(tmp_path_factory, name, partial(build, name))
