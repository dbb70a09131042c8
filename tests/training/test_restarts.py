"""What a restart by torchrun must not take over from the ranks before it, and how ranks know that torchrun is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.ranks import launcher, run_ranks

PROGRAM = """
    import os, signal, sys, time
    from editr1.errors import UserError
    from editr1.training.distributed import first_to_fail, open_world

    def say(text):
        os.write(1, f"{text}\\n".encode())  # whole lines, also of two ranks

    rank, restarted = int(os.environ["RANK"]), os.environ["TORCHELASTIC_RESTART_COUNT"] == "1"
    if rank == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun stops it, maybe before it has said why it ends
    if restarted and rank == 0:
        time.sleep(3)  # rank 1 looks for the others first: it must not find those that are gone
    with open_world(60) as world:
        say(f"restarted: {restarted}, {world.gather(rank, 'a meeting')}")
        try:
            if rank == 1:
                raise UserError("the second cause" if restarted else "the first cause")
            world.meet("the end")
        except UserError as error:
            say(str(error))
            if rank == 1:
                first_to_fail(error)
            sys.exit(2)
"""


@pytest.mark.long
def test_ranks_that_are_restarted_meet_each_other_and_know_no_earlier_failure(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    done = run_ranks([*launcher(2, restarts=1), str(program)])
    said = done.stdout.splitlines()
    assert said.count("restarted: False, [0, 1]") == said.count("restarted: True, [0, 1]") == 2, done.stderr
    for cause in ("the first cause", "the second cause"):
        assert said.count(cause) == said.count(f"rank 1 ended the run: {cause}") == 1


ORPHAN = """
    import os, sys, time
    from editr1.training.distributed import World

    world = World(launcher=os.getppid())
    print(world.is_orphan, flush=True)
    while os.getppid() == world.launcher:
        time.sleep(0.01)
    print(world.is_orphan, World().is_orphan, flush=True)
"""


def test_a_process_knows_that_the_one_that_started_it_was_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(ORPHAN))
    starter = f"import subprocess, sys; subprocess.run([sys.executable, {str(program)!r}])"
    process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "False\n"
    os.kill(process.pid, signal.SIGKILL)
    assert process.stdout.readline() == "True False\n"
    process.communicate(timeout=60)
