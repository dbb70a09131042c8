"""Steps of a sampler that are trained on: x_next = a x_t + b v + std z, with the velocity v at x_t and z ~ N(0, 1).

Letters: B rows, N tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from editr1.algorithms.base import Rows, Velocities


@dataclass(frozen=True)
class Transitions(Rows):
    """Steps of the sampler, from x_t at level t.

    Attributes:
        x_next: Where they led, [B, N, C].
        numbers: Their a, b and std, [B, 3].
        dt: Distance to the next level, [B], above 0.
    """

    x_next: Tensor = field(kw_only=True)
    numbers: Tensor = field(kw_only=True)
    dt: Tensor = field(kw_only=True)

    @property
    def abstd(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and std, [B, 1, 1] each."""
        a, b, std = self.numbers.to(self.x0.dtype)[:, :, None, None].unbind(dim=1)
        return a, b, std

    def drawn(self, v: Tensor) -> Tensor:
        """The noise that led to x_next if the velocity was `v`, [B, N, C]."""
        a, b, std = self.abstd
        return (self.x_next - a * self.x_t - b * v) / std

    def distance(self, velocities: Velocities) -> Tensor:
        """KL divergence of the steps from the untrained editor's; otherwise as of `Rows`."""
        rows = {"default": self, "reference": self.compared}
        return super().distance({name: rows[name]._scaled(velocities[name]) for name in rows if name in velocities})

    def _scaled(self, v: Tensor) -> Tensor:
        """B v / (std sqrt(2)): the squared distance of two is the KL divergence of their steps."""
        _, b, std = self.abstd
        return b * v / (std * 2**0.5)
