"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editr1.editors.open import open_editor
from editr1.training.trainer import Trainer
from tests.training.runs import Colours, Make, RedJudge, settings


@pytest.fixture
def make(tiny_editor_path: Path, tmp_path: Path) -> Make:
    """A trainer on a freshly loaded tiny editor."""

    def build(out: str = "out", judge: Any = None, **changes: Any) -> Trainer:
        editor = open_editor(tiny_editor_path, pixels=1024)
        return Trainer(settings(**changes), editor, judge or RedJudge(), Colours(), tmp_path / out)

    return build
