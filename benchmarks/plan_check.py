"""The planner against measured steps: `python benchmarks/plan_check.py`, on the CPU, of both toy editors.

For each editor, with and without gradient checkpointing and the distance to the untrained editor (kl), for one process,
for two, and for two that share the weights (shard) or the tokens of each call (context): the highest memory of tensors
in a step as torch's profiler records the allocator's work, beside the planned one; and seconds of a step beside those
that a calibrated pace gives. The pace has three numbers, measured here: a matrix product's operations per second, bytes
per second of an addition, seconds of a small operation. As the planner takes one efficiency for all runs on a GPU, the
seconds of the first case give one for all others (`time_ratio`); `bare_ratio` is without it.

Writes benchmarks/plan_check.json when all are measured, and prints a table. Seconds are CPU seconds of one thread: a
busy machine stretches them too, though less than those of a clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import results
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.editors.editor import Editor
from editr1.editors.open import open_config_editor
from editr1.files import write_file
from editr1.planning.gpus import Gpus, Kind
from editr1.planning.plan import Plan, Planner
from editr1.planning.shadow import local
from editr1.planning.stand_ins import Ranking, item
from editr1.planning.workload import Pace, seconds
from editr1.training.distributed import World, open_world
from editr1.training.interrupts import Interrupts
from editr1.training.trainer import Trainer

EDITORS = ("toy", "toy_flux_kontext")
SMALL = ("rollout.groups_per_step=2", "rollout.group_size=4", "optim.micro_batch=8", "trackers=[]", "save_every=1000")
RESULTS = Path(__file__).parent / "plan_check.json"
CPU = Kind("CPU", 0, 1.0, 1.0, 1.0, 1.0)
"""Without memory of its own: as on a CPU, gathered weights do not stay between calls."""
ONE, TWO, SHARD, CONTEXT = "1 process", "2 processes", "2 processes, shard", "2 processes, context"
SHARED: dict[str, tuple[str, ...]] = {ONE: (), TWO: (), SHARD: ("parallel.shard=2",), CONTEXT: ("parallel.context=2",)}
WARM, MEASURED = 2, 2
DEADLINE = 900.0


def settings_of(checkpointing: bool, kl: bool, shared: str = ONE) -> list[str]:
    """Overrides of one case."""
    return [
        *SMALL,
        *SHARED[shared],
        f"memory.gradient_checkpointing={checkpointing}",
        f"algorithm.kl={1.0 if kl else 0.0}",
    ]


def plan_of(name: str, overrides: Sequence[str], ranks: int) -> Plan:
    """The plan of a toy run on this machine."""
    return Planner(lambda more: load_config(name, [*overrides, *more]), Gpus(CPU, ranks), remote=False).plan()


def measure(config: Config, world: World, timed: int = MEASURED) -> dict[str, Any]:
    """Highest memory of tensors in the third step, bytes, and CPU seconds of some steps after it."""
    editor, world = open_config_editor(config, world.size, world.meet), replace(world, context=config.parallel.context)
    trainer = Trainer(config, editor, Ranking(), [item(config.editor.pixels)] * 64, config.out, world=world)
    interrupts = Interrupts(together=world.size > 1)
    for _ in range(WARM):
        trainer.train_step(None, interrupts)
    before = held_by(trainer, editor)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        trainer.train_step(None, interrupts)
    spent = []
    for _ in range(timed):
        start = time.process_time()
        trainer.train_step(None, interrupts)
        spent.append(time.process_time() - start)
    return {"peak": before + highest(record), "seconds": median(spent)}


def held_by(trainer: Trainer, editor: Editor) -> int:
    """Bytes of weights, other policies, averages, moments and gradients."""
    models = [part for part in editor.pipe.components.values() if isinstance(part, nn.Module)]
    tensors = [tensor for model in models for tensor in [*model.parameters(), *model.buffers()]]
    tensors += [param.grad for param in trainer.params if param.grad is not None]
    tensors += [value for state in trainer.optimizer.state.values() for value in state.values()]
    tensors += trainer.ema.averages.values()
    tensors += [weight for policy in editor.policies.weights.values() for weight in policy.values()]
    storages = [local(tensor).untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def highest(record: Any) -> int:
    """Most bytes allocated since a profile began."""
    now = most = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def pace_here() -> Pace:
    """The speed of this machine, with as many threads as a training process has."""
    side = 768
    left, right = torch.randn(side, side), torch.randn(side, side)
    large, small = torch.randn(2**22), torch.randn(16)
    product_seconds = timed(lambda: left @ right, 20)
    add_seconds, call = timed(lambda: large + 1.0, 20), timed(lambda: small + 1.0, 2000)
    return Pace(2 * side**3 / product_seconds, 2 * 4 * len(large) / add_seconds, call)


def timed(act: Callable[[], Any], times: int) -> float:
    """Median seconds of five rounds of a number of calls, per call."""
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(times):
            act()
        rounds.append((time.process_time() - start) / times)
    return median(rounds)


def case(name: str, overrides: Sequence[str], ranks: int) -> dict[str, Any]:
    """Measured and planned figures of one case."""
    plan = plan_of(name, overrides, ranks)
    with tempfile.TemporaryDirectory() as folder:
        own = [name, f"{folder}/measured.json", *overrides, f"out={folder}/run"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, __file__, "--one", *own], check=True, timeout=DEADLINE, env=environment)
        measured = json.loads(Path(folder, "measured.json").read_text(encoding="utf-8"))
    spent = sum(seconds(plan.step, plan.load, plan.load.largest, pace_here(), False).values())
    return {
        "measured_peak_mb": measured["peak"] / 1e6,
        "planned_peak_mb": plan.peak * 1e3,
        "memory_ratio": plan.peak * 1e9 / measured["peak"],
        "measured_seconds": measured["seconds"],
        "planned_seconds": spent,
        "bare_ratio": spent / measured["seconds"],
    }


def cases() -> Iterator[tuple[str, bool, bool, str]]:
    """Editor, checkpointing, kl, what is shared."""
    yield from product(EDITORS, (False, True), (False, True), SHARED)


def one(name: str, out: Path, overrides: Sequence[str]) -> None:
    """What torchrun starts: measure, and write the figures of the process that holds most."""
    torch.set_num_threads(1)
    with open_world() as world:
        figures = world.gather(measure(load_config(name, overrides), world), "the figures")
        if world.is_main:
            out.write_text(
                json.dumps({key: max(each[key] for each in figures) for key in figures[0]}), encoding="utf-8"
            )


def main() -> None:
    """Measure all cases."""
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    for name, checkpointing, kl, shared in cases():
        words = f"{name}, checkpointing {checkpointing}, kl {kl}, {shared}"
        rows[words] = case(name, settings_of(checkpointing, kl, shared), 1 if shared == ONE else 2)
        efficiency = next(iter(rows.values()))["bare_ratio"]
        rows[words]["time_ratio"] = rows[words]["bare_ratio"] / efficiency
        print(f"{words}: memory {rows[words]['memory_ratio']:.3f}, time {rows[words]['time_ratio']:.3f}", flush=True)
    made = results.origin("python benchmarks/plan_check.py")
    write_file(RESULTS, json.dumps({"cases": rows, "made": made}, indent=1).encode() + b"\n")
    print(table(rows))


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The smallest and the largest ratios by what is shared, as lines of Markdown."""
    lines = [
        "| Processes | cases | memory, planned / measured | time, planned / measured |",
        "| --- | ---: | --- | --- |",
    ]
    for shared in SHARED:
        found = [row for words, row in rows.items() if words.endswith(f", {shared}")]
        spans = [sorted(row[name] for row in found) for name in ("memory_ratio", "time_ratio")]
        lines.append(f"| {shared} | {len(found)} | " + " | ".join(f"{s[0]:.2f} to {s[-1]:.2f}" for s in spans) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    else:
        main()
