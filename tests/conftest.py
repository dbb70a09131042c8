"""Fixtures that several test files use."""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.editors.editor import Editor
from editr1.editors.open import open_editor
from tests.tiny import PIXELS, build_tiny_editor


@pytest.fixture(scope="session")
def tiny_editor_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random QwenImageEditPlusPipeline."""
    return build_tiny_editor(tmp_path_factory.mktemp("tiny") / "editor")


@pytest.fixture
def tiny_editor(tiny_editor_path: Path) -> Editor:
    """The tiny editor, loaded anew: a test may train it."""
    return open_editor(tiny_editor_path, pixels=PIXELS)
