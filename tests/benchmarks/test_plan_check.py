"""The table of benchmarks/plan_check.py."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.benchmarks.scripts import script


@pytest.fixture(scope="module")
def check() -> Iterator[ModuleType]:
    """The script."""
    with script("plan_check") as module:
        yield module


def test_a_row_of_the_table_has_the_smallest_and_the_largest_ratio(check: ModuleType) -> None:
    ratios = {"1 process": (0.9, 1.1), "2 processes": (1.0, 1.0), "2 processes, shard": (0.8, 1.234)}
    rows = {
        f"toy, {kl}, {shared}": {"memory_ratio": ratio, "time_ratio": 1 / ratio}
        for shared, pair in {**ratios, "2 processes, context": (1.0, 1.0)}.items()
        for kl, ratio in enumerate(pair)
    }
    lines = check.table(rows).splitlines()
    assert lines[2] == "| 1 process | 2 | 0.90 to 1.10 | 0.91 to 1.11 |"
    assert lines[3] == "| 2 processes | 2 | 1.00 to 1.00 | 1.00 to 1.00 |"
    assert lines[4] == "| 2 processes, shard | 2 | 0.80 to 1.23 | 0.81 to 1.25 |"
