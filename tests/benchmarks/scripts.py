"""A script of benchmarks/, imported as `python benchmarks/NAME.py` starts it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@contextmanager
def script(name: str) -> Iterator[ModuleType]:
    """The module, whose neighbours it finds; in the end, none of them stays imported."""
    before = {*sys.modules}
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))
        ours = {file.stem for file in BENCHMARKS.glob("*.py")}
        for each in ours & ({*sys.modules} - before):
            del sys.modules[each]
