"""The fixture that tries cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.harness import Case, Judged, Outcome, attempt


@pytest.fixture
def judged(tmp_path: Path, record_property: Callable[[str, object], None]) -> Judged:
    """Tries a case in an empty folder, and fails the test if the verdict is wrong."""

    def judge(case: Case) -> Outcome:
        outcome = attempt(case, tmp_path)
        record_property("hostile", outcome.verdict)
        right = ("clean", "one line") if case.expects == "either" else (case.expects,)
        assert outcome.verdict in right, f"{case}: {outcome.verdict}: {outcome.words}"
        return outcome

    return judge
