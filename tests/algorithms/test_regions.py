from __future__ import annotations

import numpy as np
import pytest
import torch

from editr1.algorithms.base import Edits, Rows
from editr1.algorithms.regions import outside_loss

B, N, C = 3, 6, 2
CLIP = 2.0
OUTSIDE = torch.tensor([True, False, True, True, False, False])


def rows(seed: int = 0) -> tuple[Rows, torch.Tensor, Edits, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    t = torch.rand(B, generator=g, dtype=torch.float64)
    some = Rows(draw(B, N, C), draw(B, N, C), t, torch.tensor([-3.0, 0.5, 1.0], dtype=torch.float64))
    edits, source = Edits(draw(B, N, C), some.advantages, t, outside=OUTSIDE), draw(N, C)
    return some, draw(B, N, C), edits, source


def by_loops(some: Rows, v: np.ndarray, source: torch.Tensor, margin: float) -> float:
    """The formula of the module in plain Python."""
    total = 0.0
    for b in range(B):
        squares = [
            (float(some.x_t[b, n, c]) - float(some.t[b]) * v[b, n, c] - float(source[n, c])) ** 2
            for n in range(N)
            if OUTSIDE[n]
            for c in range(C)
        ]
        r = (min(max(float(some.advantages[b]) / CLIP, -1), 1) + 1) / 2
        total += r * max(sum(squares) / len(squares) - margin, 0)
    return total / B


@pytest.mark.parametrize("margin", [0.0, 1.5, 1e3])
def test_the_loss_is_the_formula(margin: float) -> None:
    some, v, edits, source = rows()
    assert float(outside_loss(some, v, edits, source, CLIP, margin)) == pytest.approx(
        by_loops(some, v.numpy(), source, margin)
    )


def test_its_gradient_is_that_of_finite_differences_and_leaves_what_may_change_alone() -> None:
    some, v, edits, source = rows()
    v.requires_grad_()
    outside_loss(some, v, edits, source, CLIP, 0.2).backward()
    assert v.grad is not None
    step, expected = 1e-6, np.zeros((B, N, C))
    for place in np.ndindex(B, N, C):
        for sign in (1, -1):
            moved = v.detach().numpy().copy()
            moved[place] += sign * step
            expected[place] += sign * by_loops(some, moved, source, 0.2) / (2 * step)
    assert np.allclose(v.grad.numpy(), expected, atol=1e-7)
    assert not v.grad[:, ~OUTSIDE].any()
    assert not v.grad[0].any(), "an edit far below its group is left to the algorithm"


def test_the_velocity_to_the_source_costs_nothing() -> None:
    some, _, edits, source = rows()
    v = (some.x_t - source) / some.t[:, None, None]
    assert float(outside_loss(some, v, edits, source, CLIP, 0.0)) == pytest.approx(0, abs=1e-24)


def test_a_group_without_a_mask_has_no_such_loss() -> None:
    some, v, edits, source = rows()
    bare = Edits(edits.latents, edits.advantages, edits.levels)
    assert float(outside_loss(some, v, bare, source, CLIP, 0.0)) == 0


def test_a_mean_over_rows_splits() -> None:
    some, v, edits, source = rows()
    whole = outside_loss(some, v, edits, source, CLIP, 0.1)
    parts = [(outside_loss(some[b : b + 1], v[b : b + 1], edits, source, CLIP, 0.1)) / B for b in range(B)]
    assert float(whole) == pytest.approx(float(sum(parts)))
