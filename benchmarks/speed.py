"""Where the seconds of a training step go, by part, and what the same calls of the models take in bare loops.

    python benchmarks/speed.py [section.key=value ...]

Every call of a model that a step makes (text encoder, VAE, denoiser, judge, their processors, the optimiser) is
recorded with its arguments. Right after the step the recorded calls are made again, with nothing between them: what a
part of a step takes beyond that is ours. `floor.py` counts what the step cannot do without.

Writes keys "share_of_step" and "floor_over_step" of benchmarks/results.json where nothing is overridden.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import results
import torch
from rich.console import Console
from rich.table import Table

from editr1.config.loading import load_config
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.local import TransformersModel
from editr1.training.open import open_trainer
from editr1.training.trainer import Trainer

WARM, MEASURED = 2, 20  # steps
Seconds = defaultdict[str, float]
PARTS = ("encode", "rollout", "decode", "judge", "train")


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
            spent[call.part] += self.make_again(call)
        return spent

    def make_again(self, call: Call) -> float:
        """Make a recorded call again, with the backward pass of one with gradient; its seconds."""
        with self.trainer.editor.policies.using(call.policy), torch.set_grad_enabled(call.gradient):
            start = time.perf_counter()
            made = call.function(*call.args, **call.kwargs)
            if call.gradient:
                made[0].sum().backward()
            return time.perf_counter() - start

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


def measure(quick: bool = False, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Shares of a step, and of each part the seconds of its bare calls / its own; `quick` measures one step."""
    step, floor = measure_parts(overrides, 1 if quick else MEASURED)
    total = sum(step.values())
    return {
        "share_of_step": {part: step[part] / total for part in (*PARTS, "rest")},
        "floor_over_step": {"all": sum(floor.values()) / total, **{part: floor[part] / step[part] for part in PARTS}},
    }


def measure_parts(overrides: Sequence[str], steps: int) -> tuple[Seconds, Seconds]:
    """Seconds by part of `steps` steps, "rest" included, and of their bare calls."""
    step: Seconds = defaultdict(float)
    floor: Seconds = defaultdict(float)
    with tempfile.TemporaryDirectory() as out:
        trainer = open_trainer(load_config("toy", [*overrides, f"steps={WARM + steps}", f"out={out}"]))
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
    """Add one measured step."""
    for part, spent in step.items():
        seconds[part] += spent


def parts_of(stages: dict[str, float], calls: Mapping[str, float], total: float) -> dict[str, float]:
    """A step's seconds: the trainer's stages, its rollout split by the calls of text encoder and VAE."""
    rollout = stages["rollout"] - calls["encode"] - calls["decode"]
    parts = {"encode": calls["encode"], "rollout": rollout, "decode": calls["decode"], "judge": stages["judge"]}
    parts["train"] = stages["train"]
    return {**parts, "rest": total - sum(parts.values())}


def main() -> None:
    """Measure, print, write."""
    overrides = sys.argv[1:]
    figures = measure(overrides=overrides)
    table = Table(title=f"A step of the toy preset, {MEASURED} steps", title_justify="left")
    for name in ("part", "share", "bare calls / step"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part, share in figures["share_of_step"].items():
        ratio = figures["floor_over_step"].get(part)
        table.add_row(part, f"{share:.1%}", "" if ratio is None else f"{ratio:.2f}")
    table.add_row("step", "100%", f"{figures['floor_over_step']['all']:.2f}", style="bold")
    Console().print(table)
    if not overrides:
        results.add("step", figures, "python benchmarks/speed.py")


if __name__ == "__main__":
    main()
