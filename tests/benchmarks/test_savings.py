"""What the table of savings says is what its measurements say, and a measurement is that of the run, stopped or not."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editr1.errors import UserError
from editr1.toy.world import ToyDataset

ROOT = Path(__file__).parents[2]
TINY = (
    "rollout.groups_per_step=1 rollout.group_size=2 rollout.steps=2 algorithm.timesteps_per_image=1 "
    "algorithm.filter=off"
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """benchmarks/savings.py with few items and a measurement every second step."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("savings")
    monkeypatch.setattr(module, "MEASURED", (2, 4))
    monkeypatch.setattr(module, "EVAL_STEPS", 2)
    items = {"heldout": ToyDataset("heldout", 3), "rl": ToyDataset("rl", 3, seed=1)}
    monkeypatch.setattr(module, "ITEMS", items)
    yield module


def test_a_gain_between_two_measurements_is_interpolated_and_one_beyond_them_is_not_known(bench: Any) -> None:
    curves = {0: {0: np.zeros(2), 10: np.array([0.1, 0.3]), 20: np.array([0.2, 0.3])}}
    np.testing.assert_allclose(bench.gain_at(curves, 10), [[0.1, 0.3]])
    np.testing.assert_allclose(bench.gain_at(curves, 12.5), [[0.125, 0.3]])
    np.testing.assert_allclose(bench.gain_at(curves, 2), [[0.02, 0.06]])
    assert bench.gain_at(curves, 20.1) is None


def test_the_interval_is_that_of_resampling_seeds_and_items_one_by_one(bench: Any) -> None:
    values = np.random.default_rng(0).normal(0.1, 0.3, (3, 40)) + np.array([[-0.05], [0.0], [0.05]])
    rng = np.random.default_rng(1)
    means = [values[rng.integers(0, 3, 3)][:, rng.integers(0, 40, 40)].mean() for _ in range(10_000)]
    np.testing.assert_allclose(bench.interval(values), np.quantile(means, [0.025, 0.975]), atol=0.005)


def test_equal_wall_clock_gives_a_fast_variant_more_steps(bench: Any, tmp_path: Path) -> None:
    runs = bench.Runs(tmp_path, "qwen-image-edit", "heldout")
    line = {"commit": "-"}
    runs.gains("untrained", "", 0).append([{"step": 0, "scores": [0.5, 0.5], **line}])
    for name, overrides in (("defaults", ""), ("fast", "algorithm.kl=0")):
        for seed in (0, 1):
            rows = [{"step": step, "scores": [0.5 + step / 1000, 0.5 + step / 500], **line} for step in (20, 40, 80)]
            runs.gains(name, overrides, seed).append(rows)
    fastest = {"fast": {"ratio": 0.4, "spread": [0.4, 0.4], "seconds_of_defaults": 10.0}}
    assert "trained too few steps" in "\n".join(bench.table(bench.summarise(runs, fastest)))  # 90 of 80
    found = bench.summarise(runs, {"fast": {"ratio": 0.5, "spread": [0.5, 0.5], "seconds_of_defaults": 10.0}})
    assert found["defaults"]["seconds"][360]["step"] == 36
    assert found["fast"]["seconds"][360]["step"] == 72
    assert found["fast"]["seconds"][360]["gain"] == pytest.approx(0.072 * 1.5)
    assert found["fast"]["seconds"][360]["difference"] == pytest.approx(0.036 * 1.5)
    assert found["fast"]["steps"][40]["difference"] == 0
    assert found["defaults"]["seconds"][360] is not None and found["fast"]["seconds"][180]["step"] == 36
    assert "| fast | `algorithm.kl=0` | 2 | 0.50 | +0.018 | +0.009 [+0.006, +0.012] | +0.054 | +0.027 [" in "\n".join(
        bench.table(found)
    )


@pytest.mark.long
def test_a_run_that_was_stopped_has_the_measurements_of_one_that_was_not(bench: Any, tmp_path: Path) -> None:
    whole, parts = (bench.Runs(tmp_path / name, "qwen-image-edit", "rl") for name in ("whole", "parts"))
    bench.train(whole, "tiny", TINY, seed=1, steps=4)
    bench.train(parts, "tiny", TINY, seed=1, steps=2)
    bench.train(parts, "tiny", TINY, seed=1, steps=4)
    rows = [runs.gains("tiny", TINY, 1).rows for runs in (whole, parts)]
    assert rows[0] == rows[1]
    assert [row.step for row in rows[0]] == [2, 4]
    assert rows[0][0].scores != rows[0][1].scores
    untrained = whole.gains("untrained", "", 0).rows[0]
    assert (untrained.step, len(untrained.scores)) == (0, 3)
    with pytest.raises(UserError, match="overrides"):
        whole.gains("tiny", "optim.lr=1", 1)


def test_timed_steps_of_a_variant_and_of_defaults_take_turns(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class Run:
        def __init__(self, out: Path) -> None:
            self.name = out.name

        def train_step(self, *args: object) -> None:
            order.append(self.name)

    monkeypatch.setattr(bench, "open_run", lambda editor, overrides, seed, out, steps: Run(out))
    timed = bench.time_steps("qwen-image-edit", "", rounds=2)
    assert order == ["variant", "defaults"] * 4
    bench.write_seconds(tmp_path, "qwen-image-edit", "defaults", timed)
    bench.write_seconds(tmp_path, "flux-kontext", "defaults", timed)
    times = json.loads((tmp_path / "seconds.json").read_text())
    assert set(times) == {"qwen-image-edit", "flux-kontext", "machine"}


def test_an_unknown_name_is_told_with_those_that_there_are(bench: Any) -> None:
    assert bench.chosen(["a"], ["a:x=1 y=2"]) == {"a": "x=1 y=2"}
    assert bench.chosen([], ["a:x=1"]) == {"a": "x=1"}
    with pytest.raises(UserError, match="no variant is called 'b'; there are defaults"):
        bench.chosen(["b"], [])
