"""A run that two ranks begin and one process ends, stopped while it is measured on a user's own held-out items."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from editr1.cli import main as cli
from editr1.files import read_lines
from editr1.training.best import read_best
from tests.cli.test_evaluate import held
from tests.cli.test_torchrun import SIZES
from tests.cli.test_torchrun_eval_faults import toy_data
from tests.training.kills import launcher, started
from tests.training.test_ranks import SAME, weights

ITEMS = 18  # three batches of the judge: two turns of two ranks
MEASURED = ("evaluation.edits=1", "evaluation.steps=2", "evaluation.every=1", "steps=2")


def editr1(*arguments: object) -> None:
    """A command in this process."""
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert result.exit_code == 0, result.stderr


@pytest.mark.long
def test_a_run_on_own_held_out_items_stopped_on_two_ranks_goes_on_by_one_process_and_ends_the_same(
    tmp_path: Path,
) -> None:
    data = toy_data(tmp_path / "data", ITEMS)
    command = ("train", "toy", *SIZES, *MEASURED, f"evaluation.data={data}")
    one, two = tmp_path / "one", tmp_path / "two"
    editr1(*command, f"out={one}")

    rows = two / "evaluation" / "step_000001" / "rows.jsonl"
    with held(rows.with_name("k16_source.png")):  # the first rank waits there in its second turn
        with started([*launcher(2), "-m", "editr1", *command, f"out={two}"]) as launch:
            assert launch.wait(lambda: rows.exists() and rows.read_text().count("\n") > 1), launch.end()
            launch.process.send_signal(signal.SIGTERM)
            said = launch.end()
        assert launch.process.returncode != 0 and "the same command goes on" in said
    assert len(read_lines(rows)) == 1 + 16  # the settings, and the first turn of both
    editr1(*command, f"out={two}")

    metrics = [read_lines(out / "metrics.jsonl") for out in (one, two)]
    assert ["imbalance" in row for row in metrics[1]] == [True, False]
    for row, other in zip(*metrics, strict=True):
        assert {key: row.get(key) for key in SAME} == {key: other.get(key) for key in SAME}
    folders = [sorted(path.name for path in (out / "evaluation").iterdir()) for out in (one, two)]
    assert folders[0] == folders[1] == ["after", "before", "step_000001"]
    pictures = [{path.name: path.read_bytes() for path in (out / "evaluation/before").iterdir()} for out in (one, two)]
    assert pictures[0] == pictures[1]
    results = [json.loads((out / "results.json").read_text()) for out in (one, two)]
    assert [point["step"] for point in results[1]["curve"]] == [1, 2] and "oracle" not in results[1]
    best = [read_best(out / "checkpoints") for out in (one, two)]
    assert best[0] is not None and best[1] is not None
    assert (best[0].step, best[0].items, best[0].last.step) == (best[1].step, best[1].items, best[1].last.step)
    assert best[0].reward == pytest.approx(best[1].reward, abs=1e-4)
    for point, other in zip(results[0]["curve"], results[1]["curve"], strict=True):
        assert other["judge"]["after"] == pytest.approx(point["judge"]["after"], rel=1e-3)

    expected = weights(one, "ema")
    assert (weights(two, "ema") - expected).norm() <= 1e-5 * expected.norm()
    editr1("report", two)
    assert "Held-out items, judge" in (two / "report.html").read_text()
    exported = []
    for out in (one, two):
        editr1("export", out, "--to", out / "export")
        tensors = [load_file(path) for path in (out / "export").glob("*.safetensors")]
        exported.append(torch.cat([each[name].double().flatten() for each in tensors for name in sorted(each)]))
    assert (exported[1] - exported[0]).norm() <= 1e-5 * exported[0].norm()
