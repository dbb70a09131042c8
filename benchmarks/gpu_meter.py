"""Seconds, peak memory and rows of the models' calls in the trainer's own steps, and the operations of a row.

Parts of a step: `text` (the pipeline's `encode_prompt`, the vision tower included), `encode` and `decode` (the VAE),
`denoise` (the denoiser in rollouts), `train` (replays, backward pass, optimiser), `rest` (what is between them).

Operations are counted by torch's flop counter on the meta device, of the denoiser without a LoRA: a call forward, and
backward through frozen weights. What gradient checkpointing computes again is not useful work, so it is not counted.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from speed import replaced
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from editr1.training.trainer import Trainer

PARTS = ("text", "encode", "denoise", "decode", "train", "rest")
MATRIX, TIMES = 8192, 20


class Meter:
    """Watches the calls of a trainer's models.

    Attributes:
        seconds: Of each part of the step.
        peaks: Highest memory of each part since the meter began, bytes; empty without a GPU.
        rows: Denoiser rows of the step: "denoise", "train", and "gradient" for those of "train" with gradient.
        arguments: The denoiser's arguments in a call of training, on the meta device.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.device = trainer, trainer.params[0].device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.peaks: dict[str, int] = {}
        self.rows: Counter[str] = Counter()
        self.arguments: dict[str, Any] = {}
        self._in_rollout, self._before = False, trainer.seconds

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, calls are measured."""
        editor = self.trainer.editor
        pipe: Any = editor.pipe
        watched = [
            (pipe, "encode_prompt", self._timed("text", pipe.encode_prompt)),
            (pipe.vae, "encode", self._timed("encode", pipe.vae.encode)),
            (pipe.vae, "decode", self._timed("decode", pipe.vae.decode)),
            (editor.denoiser, "forward", self._denoiser(editor.denoiser.forward)),
            (editor, "rollout", self._rollout(editor.rollout)),
            (self.trainer, "_backward", self._counted(self.trainer._backward)),
        ]
        with ExitStack() as stack:
            for owner, name, function in watched:
                stack.enter_context(replaced(owner, name, function))
            yield

    def end_step(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The seconds of the step by part; `row` is the trainer's, which times the training. The next step begins."""
        self._read_peak("train")
        seconds = dict.fromkeys(PARTS, 0.0) | self.seconds | {"train": row["seconds"]["train"]}
        seconds["rest"] = self.trainer.seconds - self._before - sum(seconds.values())
        self._before = self.trainer.seconds
        self.seconds.clear()
        return seconds

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._reset_peak()
            start = now(self.device)
            result = function(*args, **kwargs)
            self.seconds[part] += now(self.device) - start
            self._read_peak(part)
            return result

        return timed

    def _denoiser(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        timed = self._timed("denoise", forward)

        def counted(*args: Any, **kwargs: Any) -> Any:
            rows = len(kwargs["hidden_states"])
            if self._in_rollout:
                self.rows["denoise"] += rows
                return timed(*args, **kwargs)
            self.rows["train"] += rows
            self.rows["gradient"] += rows * torch.is_grad_enabled()
            self.arguments = self.arguments or tree_map(as_meta, kwargs)
            return forward(*args, **kwargs)

        return counted

    def _rollout(self, rollout: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.rows.clear()
            self._in_rollout = True
            try:
                return rollout(*args, **kwargs)
            finally:
                self._in_rollout = False

        return watched

    def _counted(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """The trainer's backward passes; replays before them are its self-check's."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.rows["train"] = self.rows["gradient"] = 0
            self._reset_peak()
            return backward(*args, **kwargs)

        return counted

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _read_peak(self, part: str) -> None:
        if self.device.type == "cuda":
            self.peaks[part] = max(self.peaks.get(part, 0), torch.cuda.max_memory_allocated(self.device))


def as_meta(value: Any) -> Any:
    """The shape and the number format of a tensor; what else there is stays."""
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def count_row(denoiser: nn.Module, arguments: Mapping[str, Any]) -> tuple[float, float]:
    """Operations per row of a call with these arguments, forward and backward; all is on the meta device."""
    tokens = arguments["hidden_states"].detach().requires_grad_()
    with torch.device("meta"):
        with FlopCounterMode(display=False) as forward:
            output = denoiser(**{**arguments, "hidden_states": tokens, "return_dict": False})[0]
        with FlopCounterMode(display=False) as backward:
            output.sum().backward()
    return forward.get_total_flops() / len(tokens), backward.get_total_flops() / len(tokens)


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = MATRIX) -> float:
    """Operations per second of a product of two square matrices, by the median of several."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(2 * TIMES):
        start = now(device)
        torch.mm(left, right)
        seconds.append(now(device) - start)
    return 2 * side**3 / sorted(seconds[TIMES:])[TIMES // 2]


def now(device: torch.device) -> float:
    """The time at which a device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
