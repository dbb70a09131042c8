"""The training loop that the VAE, the editor and the judge share: Muon + AdamW, EMA, resume, a log of the curve."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

log = logging.getLogger(__name__)


def split_parameters(
    modules: Iterable[nn.Module], hidden: Callable[[str, Tensor], bool]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(matrices for Muon, the rest for AdamW); `hidden` tells a hidden layer's matrix by name and value."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (matrices if parameter.ndim >= 2 and hidden(name, parameter) else rest).append(parameter)
    return matrices, rest


class Fit:
    """Trains `modules` for `steps` steps of `loss(step) -> {name: tensor}` (the entry "loss" is minimised).

    Learning rates warm up over 100 steps and fall to a twentieth along a cosine. State is saved in `out` every 200
    steps; a new Fit on the same folder goes on from there.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        out: Path,
        *,
        steps: int,
        hidden: Callable[[str, Tensor], bool] = lambda name, value: False,
        muon_lr: float = 3e-3,
        ema: float = 0.998,
    ) -> None:
        self.modules, self.out = nn.ModuleDict(modules), out
        self.steps, self.save_every, self.ema = steps, 200, ema
        matrices, rest = split_parameters(modules.values(), hidden)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
        ]
        # Muon takes matrices: a convolution's kernel is seen as one, [out, in * taps], a view on the same memory.
        self.kernels = matrices
        self.views = [nn.Parameter(value.data.flatten(1)) for value in matrices]
        if matrices:
            self.optimizers.append(
                torch.optim.Muon(self.views, lr=muon_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]
        self.average = {name: value.detach().clone() for name, value in self.modules.state_dict().items()}
        self.step = 0
        out.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self, loss: Callable[[int], dict[str, Tensor]], stop: int | None = None) -> None:
        """Train until `steps`, or `stop` of them, are done, then put the averaged weights into the modules."""
        started, count, last = time.monotonic(), 0, self.steps if stop is None else stop
        sums: dict[str, float] = {}
        while self.step < last:
            self._set_rates()
            parts = loss(self.step)
            parts["loss"].backward()
            nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
            for view, kernel in zip(self.views, self.kernels, strict=True):
                view.grad = None if kernel.grad is None else kernel.grad.flatten(1)
            for optimizer in self.optimizers:
                optimizer.step()
            self.modules.zero_grad(set_to_none=True)
            self._average()
            self.step += 1
            count += 1
            sums = {name: sums.get(name, 0.0) + float(value.detach()) for name, value in parts.items()}
            if self.step % 50 == 0:
                row = {"step": self.step, "seconds": round(time.monotonic() - started, 1)} | {
                    k: round(v / count, 5) for k, v in sums.items()
                }
                with (self.out / "curve.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                log.info("%s %s", self.out.name, row)
                sums, count = {}, 0
            if self.step % self.save_every == 0 or self.step == self.steps:
                self.save()
        self.save()
        self.modules.load_state_dict(self.average)

    def save(self) -> None:
        """Write weights, average and optimizer state; the state of before stays valid until this one is whole."""
        tensors = {f"weights.{k}": v.contiguous() for k, v in self.modules.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{index}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        part = self.out / "state.part"
        save_file({k: v.clone() for k, v in tensors.items()}, part, metadata={"step": str(self.step)})
        part.replace(self.out / "state.safetensors")

    def _resume(self) -> None:
        path = self.out / "state.safetensors"
        if not path.exists():
            return
        tensors = load_file(path)
        self.modules.load_state_dict(
            {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
        )
        self.average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{i}."):
                    _, _, index, name = key.split(".", 3)
                    state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        with safe_open(path, "pt") as file:
            self.step = int(file.metadata()["step"])

    def _set_rates(self) -> None:
        warm = min(1.0, (self.step + 1) / 100)
        rate = warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / self.steps))))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        live = self.modules.state_dict()
        floats = [name for name, value in live.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floats], [live[n] for n in floats], 1 - decay)
