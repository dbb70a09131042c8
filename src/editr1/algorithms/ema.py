"""The average of the trained weights, which evaluation uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class EMA:
    """Exponential moving average of named parameters: avg <- d_s avg + (1 - d_s) theta after step s (from 0).

        d_s = min((1 + s) / (10 + s), decay)    with warm-up, as in the released code of Edit-R1
        d_s = decay                             without

    With warm-up the untrained start is forgotten quickly, and d_s reaches 0.9 at s = 80: until then a decay of 0.99 is
    the same as one of 0.9. Without, the start keeps a weight of decay^n after n steps, which nothing corrects: after
    10 steps with 0.99 the average is 90 % untrained. The average has at least float32, so that the small steps of
    bfloat16 weights are not rounded away.

    Args:
        params: Pairs (name, parameter).
        decay: Decay rate in [0, 1), after the warm-up if there is one; 0.9 in the paper.
        warmup: Whether the first steps have smaller rates.
    """

    def __init__(self, params: Iterable[tuple[str, Tensor]], decay: float, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self.params = dict(params)
        self.averages = {
            name: theta.detach().to(torch.promote_types(theta.dtype, torch.float32), copy=True)
            for name, theta in self.params.items()
        }

    def decay_after(self, step: int) -> float:
        """d_s of step `step` (from 0)."""
        return min((1 + step) / (10 + step), self.decay) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average toward the parameters' values after step `step` (from 0)."""
        decay = self.decay_after(step)
        for name, theta in self.params.items():
            average = self.averages[name]
            average.lerp_(theta.to(average.dtype), 1 - decay)

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Inside, the parameters hold the averages; afterwards, even after an exception, their own values."""
        trained = {name: theta.detach().clone() for name, theta in self.params.items()}
        self._fill(self.averages)
        try:
            yield
        finally:
            self._fill(trained)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name (not copies)."""
        return dict(self.averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from saved averages.

        Args:
            state: Averages by name, as `state_dict` returns them.

        Raises:
            ValueError: Names or shapes are not those of the parameters.
        """
        own = {name: average.shape for name, average in self.averages.items()}
        saved = {name: average.shape for name, average in state.items()}
        if misfits := sorted(dict(own.items() ^ saved.items())):
            raise ValueError(
                f"the saved average does not fit these parameters, first at {misfits[0]!r}: resume with the adapter "
                "settings (mode, rank, targets) of the run that saved it"
            )
        for name, average in self.averages.items():
            average.copy_(state[name])

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        """Write `values` into the parameters, in place."""
        for name, theta in self.params.items():
            theta.copy_(values[name])
