"""Every family as a tiny pipeline of its real class, saved once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.editors import tiny_bfl, tiny_bria, tiny_other, tiny_qwen

BUILDERS = {**tiny_qwen.BUILDERS, **tiny_bfl.BUILDERS, **tiny_bria.BUILDERS, **tiny_other.BUILDERS}


@pytest.fixture(scope="session")
def pipeline_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline, by its class name."""
    made: dict[str, Path] = {}

    def path(name: str) -> Path:
        if name not in made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made[name] = tmp_path_factory.mktemp("pipelines") / name
                BUILDERS[name]().save_pretrained(made[name])
        return made[name]

    return path
