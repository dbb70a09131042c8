"""The fixture that tries cases, and the number of tries by verdict."""

from __future__ import annotations

from collections import Counter
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of tries by verdict."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    properties = [entry for report in reports for entry in report.user_properties]
    if counts := Counter(verdict for name, verdict in properties if name == "hostile"):
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        terminalreporter.write_line(f"{counts.total()} hostile tries: {words}")
