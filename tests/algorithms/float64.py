"""Float64 rows of two comparisons, and gradients by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editr1.algorithms.base import Rows

N, C = 3, 4
Array = NDArray[np.float64]
Policies = dict[str, Tensor]


def batch(seed: int = 0, unit: int = 3, apart: float = 1.0, equal: bool = False) -> tuple[Rows, Policies, Array]:
    """Rows of two units, velocities of policies that are `apart` from the trained one, and what they should be."""
    draw, b = np.random.default_rng(seed), 2 * unit
    x0, v, old, reference = draw.standard_normal((4, b, N, C))
    eps = draw.standard_normal((2, 1, N, C)).repeat(unit, axis=1).reshape(b, N, C)
    t = draw.uniform(0.05, 1, 2).repeat(unit)
    advantages = np.zeros(b) if equal else draw.uniform(-8, 8, b)
    x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
    velocities = {"default": v, "old": v + apart * old, "reference": v + apart * reference}
    rows = Rows(*map(torch.from_numpy, (x0, x_t, t, advantages)), unit=unit)
    return rows, {name: torch.from_numpy(value) for name, value in velocities.items()}, eps - x0


def gradient(loss: Callable[[Policies], Tensor], velocities: Policies) -> Tensor:
    """Of the loss in the velocity of the trained policy, by torch."""
    v = velocities["default"].clone().requires_grad_()
    return torch.autograd.grad(loss({**velocities, "default": v}), v)[0]


def finite_differences(loss: Callable[[Policies], float], velocities: Policies, step: float = 1e-6) -> Tensor:
    """The same from values of the loss alone."""
    slopes = torch.zeros_like(velocities["default"].detach())
    for place in np.ndindex(*slopes.shape):
        values = []
        for sign in (1, -1):
            v = velocities["default"].detach().clone()
            v[place] += sign * step
            values.append(loss({**velocities, "default": v}))
        slopes[place] = (values[0] - values[1]) / (2 * step)
    return slopes


def flow_matching(weights: Array, target: Array, velocities: Policies) -> Tensor:
    """The gradient of mean_i weight_i |v - target|^2, in closed form: 2 weight_i (v - target) / (B N C)."""
    v = velocities["default"].numpy()
    return torch.from_numpy(2 * weights[:, None, None] * (v - target) / v.size)
