"""Whether what is trained is what was sampled, by the first steps of every session.

Three figures: the largest difference between a denoiser call of the pipeline and its replay (`Editor.self_check`), how
many layers are trained, and which of the trained modules get no gradient. The log tells them; `self_check.json` keeps
them for the report.

Letters: P trained weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from editr1.editors.editor import Editor, Rollout
from editr1.editors.lora.comfyui import listing
from editr1.files import write_file
from editr1.training.distributed import ALONE, World
from editr1.training.log import StepProgress
from editr1.training.run_files import SELF_CHECK

STEPS = 5  # with a gradient, after which a module without any is told
LEAF = re.compile(r"(\.lora_[AB])?\.[^.]+$")  # of a weight's name, behind that of its module
BLOCK = re.compile(r"(.+?)\.(\d+)\.")


class SelfCheck:
    """Collects the figures of a session; every rank has one, the main one tells them.

    Args:
        editor: The editor, with its policies.
        names: Names of the trained weights, P.
        out: Folder of the run.
        world: The ranks of the run.
    """

    def __init__(self, editor: Editor, names: Sequence[str], out: Path, world: World) -> None:
        self._editor, self._names, self._out, self._is_main = editor, names, out, world.is_main
        self._holders = world if editor.policies.spread else ALONE  # whose gradients differ
        self._norms: Tensor | None = None
        self._steps, self._told = 0, -1
        self._replay: float | None = None

    def replay(self, rollout: Rollout) -> None:
        """Compare the first rollout of the session with its replay.

        Raises:
            EditorMismatch: They differ.
        """
        if self._replay is None:
            self._replay = max(self._editor.self_check(rollout))

    @torch.no_grad()
    def watch(self, params: Sequence[Tensor]) -> None:
        """Note the norms of the gradients of the first steps; the device is not waited for."""
        if self._steps < STEPS:
            norms = torch.stack([_norm(param) for param in params])  # P
            self._norms = norms if self._norms is None else torch.maximum(self._norms, norms)
            self._steps += 1

    def tell(self, progress: StepProgress, last: bool) -> None:
        """Tell what a step has shown, once; `last` if it is the run's last. All ranks call it after each step."""
        seen = self._steps if self._steps == STEPS or last else 0
        if self._told >= seen:
            return
        trained, layers = self._editor.policies.coverage
        record = {"replay_error": self._replay, "trained": trained, "layers": layers, "steps": seen}
        if seen:
            record |= self._gradients()
        if self._is_main:
            write_file(self._out / SELF_CHECK, json.dumps(record, indent=1).encode())
        words = (coverage_words(record) if self._told < 0 else []) + gradient_words(record)
        progress.say(f"sampled = trained: {', '.join(words)}")
        if fault := silence(record):
            progress.warn(f"warning: {fault}")
        self._told = seen

    def _gradients(self) -> dict[str, Any]:
        """`silent_modules` of the gradients that any rank has seen."""
        assert self._norms is not None, "there was a step"
        norms = self._holders.gather(self._norms.tolist(), "the gradients of the first steps")
        return silent_modules(self._names, [max(each) for each in zip(*norms, strict=True)])


def silent_modules(names: Sequence[str], norms: Sequence[float]) -> dict[str, Any]:
    """The trained modules none of whose weights has a gradient.

    Args:
        names: Of the weights, P.
        norms: Largest norm of the gradient of each, P.

    Returns:
        "modules": How many there are. "dead_ends": Those of the last block that nothing reads, as of a text stream
        beside the picture's; others of that block have a gradient. "silent": All others without one.
    """
    largest: dict[str, float] = {}
    for name, norm in zip(names, norms, strict=True):
        module = LEAF.sub("", name)
        largest[module] = max(largest.get(module, 0.0), norm)
    lasts: dict[str, int] = {}
    for module in largest:
        if block := BLOCK.match(module):
            lasts[block[1]] = max(lasts.get(block[1], 0), int(block[2]))
    ends = tuple(f"{blocks}.{last}." for blocks, last in lasts.items())
    alive = tuple(end for end in ends if any(norm > 0 for name, norm in largest.items() if name.startswith(end)))
    silent = [module for module, norm in largest.items() if norm == 0]
    dead_ends = [module for module in silent if module.startswith(alive)]
    others = [module for module in silent if module not in dead_ends]
    return {"modules": len(largest), "silent": others, "dead_ends": dead_ends}


def coverage_words(record: Mapping[str, Any]) -> list[str]:
    """What is known after one step, in words."""
    replay = record["replay_error"]
    return [
        "no rollout was replayed" if replay is None else f"replay error {replay:.3g}",
        f"{record['trained']} of {record['layers']} layers are trained",
    ]


def gradient_words(record: Mapping[str, Any]) -> list[str]:
    """Which trained modules have a gradient, in words; none before it is known."""
    if not record["steps"]:
        return []
    silent, ends = record["silent"], record["dead_ends"]
    if len(silent) == record["modules"]:
        return ["no trained module has a gradient"]
    but = f" but {listing(ends)} of the last block, whose results nothing reads" if ends else ""
    return [f"no gradient in {listing(silent)}" if silent else f"every trained module has a gradient{but}"]


def in_words(record: Mapping[str, Any]) -> str:
    """All that is known, for the report."""
    return ", ".join(coverage_words(record) + gradient_words(record))


def silence(record: Mapping[str, Any]) -> str | None:
    """What modules without a gradient mean, in a sentence; None if there are none, or if it is not known."""
    if not record["steps"] or not record["silent"]:
        return None
    steps = f"in the first {record['steps']} steps"
    if len(record["silent"]) == record["modules"]:
        return f"none of the {record['modules']} trained modules had a gradient {steps}: do rewards differ in a group?"
    return (
        f"{listing(record['silent'])} of the {record['modules']} trained modules had no gradient {steps}: what they "
        "compute does not reach the edit. Leave them out of adapter.targets, or look at what cuts them off."
    )


def _norm(param: Tensor) -> Tensor:
    """The norm of what this rank holds of a gradient."""
    grad = param.grad
    if grad is None:
        return torch.zeros((), device=param.device)
    local = grad.to_local() if isinstance(grad, DTensor) else grad
    return torch.linalg.vector_norm(local, dtype=torch.float32)
