"""Fixtures that several test files use."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import build_tiny_editor


@pytest.fixture(scope="session")
def tiny_editor_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random QwenImageEditPlusPipeline."""
    return build_tiny_editor(tmp_path_factory.mktemp("tiny") / "editor")
