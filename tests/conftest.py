"""Fixtures that several test files use."""

from __future__ import annotations

import faulthandler
import os
from collections import Counter
from pathlib import Path

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import settings

from editr1.editors.editor import Editor
from editr1.editors.open import open_editor
from tests.tiny import PIXELS, build_once, build_tiny_editor, build_vision_model

# The same examples every time, however busy the machine is; `pytest --hypothesis-profile default` tries new ones.
settings.register_profile("editr1", derandomize=True, deadline=None)
settings.load_profile("editr1")

# Hostile tries are forks of this process; the threads of pyarrow's jemalloc would be missing in them.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long tests first, so that no worker ends with one while the other has nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Watch for hanging again: pytest stops watching a test that fails, and its fixtures may hang too."""
    limit = float(item.config.getini("faulthandler_timeout"))
    faulthandler.dump_traceback_later(limit, file=item.config.stash[fault_handler_stderr_fd_key], exit=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of hostile tries by verdict."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    properties = [entry for report in reports for entry in report.user_properties]
    if counts := Counter(verdict for name, verdict in properties if name == "hostile"):
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        terminalreporter.write_line(f"{counts.total()} hostile tries: {words}")


@pytest.fixture(scope="session")
def tiny_editor_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random QwenImageEditPlusPipeline."""
    return build_once(tmp_path_factory, "tiny_editor", build_tiny_editor)


@pytest.fixture(scope="session")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random DINOv2 with its processor."""
    return build_once(tmp_path_factory, "dino", build_vision_model)


@pytest.fixture
def tiny_editor(tiny_editor_path: Path) -> Editor:
    """The tiny editor, loaded anew: a test may train it."""
    return open_editor(tiny_editor_path, pixels=PIXELS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a test stays in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
