"""Ranks that hang are named with the line where they wait, ended, and started once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranks import HangWarning, RanksHang, launcher, run_ranks

PROGRAM = """
import os, sys, time
from pathlib import Path

mark = Path(sys.argv[1]) / os.environ["RANK"]
while sys.argv[2] == "always" or not mark.exists():
    mark.touch()
    time.sleep(600)  # here it hangs
print("at last")
"""


def command(tmp_path: Path, when: str) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return [*launcher(2), str(program), str(tmp_path), when]


def test_ranks_that_hang_once_are_named_and_started_again(tmp_path: Path) -> None:
    with pytest.warns(HangWarning, match=r'program\.py", line 8 in <module>'):
        done = run_ranks(command(tmp_path, "once"), seconds=25)
    assert (done.returncode, done.stdout.count("at last")) == (0, 2)


def test_ranks_that_hang_twice_fail(tmp_path: Path) -> None:
    with pytest.warns(HangWarning), pytest.raises(RanksHang, match="line 8 in <module>"):
        run_ranks(command(tmp_path, "always"), seconds=10)
