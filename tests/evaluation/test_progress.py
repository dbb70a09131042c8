"""Progress of an evaluation where there is no terminal."""

from __future__ import annotations

import io

from rich.console import Console

from editr1.evaluation.progress import QUIET, progress


def test_long_evaluations_say_now_and_then_how_far_they_are_where_there_is_no_terminal() -> None:
    now = [0.0]
    said = io.StringIO()
    with progress(Console(file=said, width=80), "instructions", 40, lambda: now[0]) as done:
        for _ in range(5):
            now[0] += QUIET / 2
            done(8)
        lines = said.getvalue().splitlines()
    assert [line for line in lines if line.strip()] == ["instructions 16/40", "instructions 32/40"]


def test_nothing_to_do_is_no_progress() -> None:
    said = io.StringIO()
    with progress(Console(file=said), "edits", 0) as done:
        done()
    assert said.getvalue() == ""
