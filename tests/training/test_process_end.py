"""The process of a rank ends with its own exit code, whatever threads of gloo still hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys
from editr1.training.process_end import run_and_exit

def program():
    atexit.register(print, "handlers ran")
    print("begun")
    {end}

run_and_exit(program)
"""

# Two ranks end right after a collective, while the threads of gloo that carry it get no time of the one processor.
RANKS = """
import os, sys
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from editr1.training.process_end import run_and_exit

folder, rank = Path(sys.argv[1]), int(sys.argv[2])

def program(store):
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=limit)
    global mesh
    mesh = init_device_mesh("cpu", (2,))
    group = mesh.get_group()
    dist.barrier(group)
    one = {min(os.sched_getaffinity(0))}
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), one)
        if thread.joinpath("comm").read_text().startswith("pt_gloo"):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)
    for _ in range(3):
        dist.all_reduce(torch.ones(1), group=group)
    dist.destroy_process_group()

codes = []
for number in range(12):
    child = os.fork()
    if child == 0:
        run_and_exit(lambda: program(folder / str(number)))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.exit(str(codes) if any(codes) else 0)
"""


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(130)", 130, ""),
        ("sys.exit('why it ends')", 1, "why it ends"),
        ("raise ValueError('odd')", 1, "ValueError: odd"),
    ],
)
def test_exit_codes_words_and_handlers_are_those_of_any_program(end: str, code: int, words: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(end=end)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code and done.stdout == "begun\nhandlers ran\n"
    assert words in done.stderr and bool(words) == bool(done.stderr)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the threads of gloo under /proc")
def test_a_rank_that_ends_while_gloo_holds_its_tensors_is_not_aborted(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANKS, tmp_path, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        assert [(rank.communicate(timeout=600)[1], rank.returncode) for rank in ranks] == [("", 0), ("", 0)]
    finally:
        for rank in ranks:
            rank.kill()
