"""Where the seconds of a training step go, against the same model calls in bare loops, and what memory does.

    python benchmarks/speed.py [section.key=value ...]

Every call of a model that a step makes (text encoder, VAE, denoiser, judge, their processors, the optimiser) is
recorded with its arguments. Right after the step the recorded calls are made again, with nothing between them: that
time is the floor, and floor / step says how much of a step is the models' own. Both sides of a ratio come from the same
minute of one run.

Writes benchmarks/results.json where nothing is overridden; exits with 1 where the floor is under 0.80 of the step or
memory grows over 100 steps.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

from editr1.config.loading import load_config
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.local import TransformersModel
from editr1.training.open import open_trainer
from editr1.training.trainer import Trainer

WARM, MEASURED, LONG = 2, 5, 100  # steps
Seconds = defaultdict[str, float]
PARTS = ("encode", "rollout", "decode", "judge", "train")
LEAST_FLOOR, MOST_GROWTH = 0.80, 1.02
SMALL = ("rollout.groups_per_step=2", "rollout.group_size=4")  # a step of the long run: the same code, less of it


@dataclass
class Call:
    """One recorded call of a model."""

    part: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    gradient: bool
    policy: Any


class Tape:
    """Times the model calls of a step and keeps them to be made again."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.stage = trainer, "train"
        self.calls: list[Call] = []
        self.seconds: Seconds = defaultdict(float)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, the models' calls go on the tape."""
        editor, judge = self.trainer.editor, self.trainer.judge
        assert isinstance(judge, MLLMJudge) and isinstance(judge.model, TransformersModel)
        pipe = editor.pipe
        encoders = {id(pipe.processor), id(pipe.text_encoder)}
        processors = {type(pipe.processor), type(judge.model.processor)}
        with ExitStack() as stack:
            watch = partial(self._watch, stack)
            for kind in processors:
                watch(kind, "__call__", lambda args: "encode" if id(args[0]) in encoders else "judge")
            watch(pipe.text_encoder, "forward", lambda _: "encode")
            watch(pipe.vae, "encode", lambda _: "encode")
            watch(pipe.vae, "decode", lambda _: "decode")
            watch(editor.denoiser, "forward", lambda _: self.stage)
            watch(judge.model.model, "forward", lambda _: "judge")
            watch(self.trainer.optimizer, "step", lambda _: "train")
            stack.enter_context(replaced(editor, "rollout", self._staged(editor.rollout)))
            yield

    def replay(self) -> Seconds:
        """Make the recorded calls again, bare; seconds by part."""
        spent: Seconds = defaultdict(float)
        for call in self.calls:
            with self.trainer.editor.policies.using(call.policy), torch.set_grad_enabled(call.gradient):
                start = time.perf_counter()
                made = call.function(*call.args, **call.kwargs)
                if call.gradient:
                    made[0].sum().backward()
                spent[call.part] += time.perf_counter() - start
        return spent

    def clear(self) -> None:
        """Forget the step."""
        self.calls.clear()
        self.seconds.clear()

    def _watch(self, stack: ExitStack, owner: Any, name: str, part_of: Callable[[tuple[Any, ...]], str]) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            part = part_of(args)
            gradient = torch.is_grad_enabled() and owner is self.trainer.editor.denoiser
            self.calls.append(Call(part, function, args, kwargs, gradient, self.trainer.editor.policies.active))
            start = time.perf_counter()
            made = function(*args, **kwargs)
            self.seconds[part] += time.perf_counter() - start
            return made

        stack.enter_context(replaced(owner, name, timed))

    def _staged(self, rollout: Callable[..., Any]) -> Callable[..., Any]:
        def staged(*args: Any, **kwargs: Any) -> Any:
            self.stage = "rollout"
            try:
                return rollout(*args, **kwargs)
            finally:
                self.stage = "train"

        return staged


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` inside; an attribute that stood on the class only is taken off again."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def measure_speed(overrides: list[str]) -> tuple[Seconds, Seconds]:
    """Mean seconds by part of a step, "rest" included, and of its bare calls."""
    step: Seconds = defaultdict(float)
    floor: Seconds = defaultdict(float)
    with tempfile.TemporaryDirectory() as out:
        trainer = open_trainer(load_config("toy", [*overrides, f"steps={WARM + MEASURED}", f"out={out}"]))
        tape, before = Tape(trainer), 0.0

        def on_step(row: dict[str, Any]) -> None:
            nonlocal before
            if row["step"] > WARM:
                add(step, parts_of(row["seconds"], tape.seconds, trainer.seconds - before))
                add(floor, tape.replay())
            before = trainer.seconds
            tape.clear()

        with tape.recording():
            trainer.train(on_step=on_step)
    return step, floor


def add(seconds: Seconds, step: Mapping[str, float]) -> None:
    """Add one measured step's share to the means."""
    for part, spent in step.items():
        seconds[part] += spent / MEASURED


def parts_of(stages: dict[str, float], calls: Mapping[str, float], total: float) -> dict[str, float]:
    """A step's seconds: the trainer's stages, its rollout split by the calls of text encoder and VAE."""
    rollout = stages["rollout"] - calls["encode"] - calls["decode"]
    parts = {"encode": calls["encode"], "rollout": rollout, "decode": calls["decode"], "judge": stages["judge"]}
    parts["train"] = stages["train"]
    return {**parts, "rest": total - sum(parts.values())}


def measure_memory(overrides: list[str]) -> list[int]:
    """Resident bytes after each of `LONG` small steps."""
    held: list[int] = []
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as out:
        trainer = open_trainer(load_config("toy", [*overrides, *SMALL, f"steps={LONG}", f"out={out}"]))
        trainer.train(on_step=lambda row: held.append(process.memory_info().rss))
    return held


def main() -> int:
    """Measure, print, write; 1 where a limit is broken."""
    overrides, console = sys.argv[1:], Console()
    step, floor = measure_speed(overrides)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = measure_memory(overrides)
    total = sum(step.values())
    ratio = sum(floor.values()) / total
    growth = sum(held[-10:]) / sum(held[10:20])
    results = {
        "share_of_step": {part: step[part] / total for part in (*PARTS, "rest")},
        "floor_over_step": {"all": ratio, **{part: floor[part] / step[part] for part in PARTS}},
        "memory_last_over_early_of_100_steps": growth,
    }
    if not overrides:
        path = Path(__file__).parent / "results.json"
        others = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**others, **results}, indent=1) + "\n", encoding="utf-8")

    table = Table(title=f"A step of the toy preset, mean of {MEASURED}", title_justify="left")
    for name in ("part", "seconds", "share", "bare calls", "floor / step"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part in PARTS:
        share, kept = f"{step[part] / total:.0%}", f"{floor[part] / step[part]:.2f}"
        table.add_row(part, f"{step[part]:.3f}", share, f"{floor[part]:.3f}", kept)
    table.add_row("rest", f"{step['rest']:.3f}", f"{step['rest'] / total:.0%}")
    table.add_section()
    table.add_row("step", f"{total:.3f}", "100%", f"{sum(floor.values()):.3f}", f"{ratio:.2f}", style="bold")
    console.print(table)
    console.print(f"Memory: peak {peak / 2**20:.0f} MiB; steps 91-100 of {LONG} over steps 11-20: {growth:.3f}")
    broken = [f"floor / step is {ratio:.3f}, under {LEAST_FLOOR:.2f}"] if ratio < LEAST_FLOOR else []
    broken += [f"memory grows by {growth - 1:.1%}"] if growth > MOST_GROWTH else []
    console.print("\n".join(broken) or "Both within limits.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
