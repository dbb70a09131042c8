"""Less work for nearly the same gradient: which edits of a group are trained on, at which levels, and on which rows
the untrained editor is asked.

Every choice is a function of the rewards or of a generator, so that all processes of a run make the same one.

Letters: G edits of a group, n edits of it that are trained on, S noise levels that the sampler visits, T levels an edit
is trained at, B rows (one row is one edit at one level).
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVEL_MIN = 1e-3


def informative(advantages: Tensor, share: float) -> list[int]:
    """Indices, rising, of the scored edits with the largest |A|: a share of them, at least one; earlier ones if equal.

    Args:
        advantages: [G]; NaN for an edit without reward.
        share: In (0, 1]; the number of edits is rounded.
    """
    scored = (~advantages.isnan()).nonzero()[:, 0]
    order = advantages[scored].abs().argsort(descending=True, stable=True)
    return sorted(scored[order[: count_informative(len(scored), share)]].tolist())


def count_informative(scored: int, share: float) -> int:
    """How many edits out of `scored` are trained on."""
    return max(round(share * scored), min(scored, 1))


def rescale(advantages: Tensor, chosen: list[int], clip: float) -> Tensor:
    """Advantages [n] of the chosen edits that weigh in a mean over n as much as those of all scored edits in theirs.

        A_i <- c clip(A_i, -A_max, A_max),    c = mean_scored |clip(A)| / mean_chosen |clip(A)|

    c is at most 1, if the chosen ones are the largest: n edits of a group whose other edits have A = 0 get c = n / G.

    Args:
        advantages: [G]; NaN for an edit without reward.
        chosen: Their indices.
        clip: A_max.
    """
    clipped = advantages.clamp(-clip, clip)
    every, some = clipped[~clipped.isnan()].abs().mean(), clipped[chosen].abs().mean()
    return clipped[chosen] * (every / some if some > 0 else 1.0)


def draw_levels(visited: Tensor | None, edits: int, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels [G, T]: for each edit `count` of `visited` [S], without repeats; None for anywhere in (0, 1)."""
    if visited is None:
        return torch.rand(edits, count, generator=generator) * (1 - LEVEL_MIN) + LEVEL_MIN
    order = torch.rand(edits, len(visited), generator=generator).argsort(dim=1)[:, :count]  # G T
    return visited[order.to(visited.device)]


def spread_levels(visited: Tensor | None, edits: int, chosen: int, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels [n, T] that cover all levels evenly; one alone is distributed as by `draw_levels`.

    Of `visited`, every level is taken equally often, to one: rows go through a random order of them again and again.
    Without, (0, 1) is cut into n T equal parts and each part gives one level. The draws do not depend on n.

    Args:
        visited: [S] in (0, 1], S at least T; None for anywhere in (0, 1).
        edits: G.
        chosen: n, at most G.
        count: T.
        generator: On the CPU.
    """
    rows = chosen * count
    if visited is not None:
        order = torch.rand(len(visited), generator=generator).argsort()
        return visited[order[torch.arange(rows) % len(visited)].to(visited.device)].reshape(chosen, count)
    order, inside = torch.rand(2, edits * count, generator=generator)[:, :rows]
    t = (order.argsort() + inside) / rows
    return (t * (1 - LEVEL_MIN) + LEVEL_MIN).reshape(chosen, count)


def sample_rows(rows: int, share: float, generator: torch.Generator) -> Tensor:
    """Weights [B]: B / k for k rows drawn at random, 0 for the others, so that each has the expectation 1.

    Args:
        rows: B.
        share: Of the rows that are drawn, in (0, 1]; their number k is rounded, and at least one.
        generator: On the CPU.
    """
    drawn = torch.rand(rows, generator=generator).argsort()[: max(round(share * rows), 1)]
    return torch.zeros(rows).index_fill(0, drawn, rows / len(drawn))
