"""Two ranks that ask a judge on a server: each edit is asked about once, and all ranks see alike that it is gone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from editr1.files import read_lines
from editr1.training.checkpoint import latest
from tests.cli.test_torchrun import FAULT, SIZES, train
from tests.judges.fault_server import FaultServer
from tests.training.kills import launcher, started
from tests.training.test_ranks import FIRST, SAME, weights

EDITS = 3 * 5  # of a step


def judge_at(server: FaultServer) -> str:
    return f"judge={{endpoints: ['{server.url}'], model: test, tries: 1, timeout: 30}}"


@pytest.mark.long
def test_two_ranks_ask_a_server_what_one_process_asks(tmp_path: Path) -> None:
    rows, asked = {}, {}
    for ranks in (1, 2):
        with FaultServer() as server:
            (rows[ranks],) = train(ranks, "toy", tmp_path / str(ranks), "steps=1", judge_at(server))
            asked[ranks] = sorted(str(body["messages"]) for body in server.bodies)
    assert asked[2] == asked[1] and len(asked[1]) == 1 + EDITS  # one before the run
    keys = {*FIRST, *SAME}
    assert {key: rows[2].get(key) for key in keys} == {key: rows[1].get(key) for key in keys}
    expected = weights(tmp_path / "1")
    assert (weights(tmp_path / "2") - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.long
def test_a_server_that_dies_ends_all_ranks_by_one_line_with_a_checkpoint_and_the_run_goes_on_with_another(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    command = [*launcher(2), "-m", "editr1", "train", "toy", *SIZES, "failures.steps=2", f"out={out}"]
    metrics = out / "metrics.jsonl"
    with ExitStack() as running:
        server = running.enter_context(FaultServer(latency=0.2))
        with started([*command, "steps=50", judge_at(server)]) as launch:
            assert launch.wait(lambda: metrics.exists() and len(read_lines(metrics)) > 0), launch.end()
            running.close()
            said = launch.end()
    faults = FAULT.findall(said)
    assert launch.process.returncode != 0 and "exitcode  : 2" in said
    assert len(faults) == 1 and f"gave no reward for {EDITS} of the last step's {EDITS} edits" in faults[0]
    assert "127.0.0.1" in faults[0] and "run the same command again" in faults[0]
    rows, last = read_lines(metrics), latest(out / "checkpoints")
    assert [row["unscored"] for row in rows[-2:]] == [EDITS] * 2 and rows[0]["unscored"] == 0
    assert last is not None and last.name == f"step_{len(rows):06d}"

    with FaultServer() as server, started([*command, f"steps={len(rows) + 1}", judge_at(server)]) as launch:
        said = launch.end()
    assert launch.process.returncode == 0, said
    again = read_lines(metrics)
    assert again[:-1] == rows and again[-1]["step"] == len(rows) + 1 and again[-1]["unscored"] == 0
