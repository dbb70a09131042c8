"""How many of a denoiser's blocks are rehearsed, and what all of them take.

Memory and operations are linear in the number of blocks of each kind, so three points of two kinds tell all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FEW, MORE = 2, 4
Blocks = Mapping[str, int]
"""Numbers of blocks by the setting that says how many of a kind there are."""


def cuts(blocks: Blocks) -> list[dict[str, int]]:
    """The numbers of blocks to rehearse: few of each kind, then more of one kind; all of them where there are few."""
    if all(count <= MORE for count in blocks.values()):
        return [dict(blocks)]
    few = {kind: min(count, FEW) for kind, count in blocks.items()}
    return [few, *({**few, kind: min(count, MORE)} for kind, count in blocks.items() if count > FEW)]


def extrapolated(values: Sequence[float], points: Sequence[Blocks], blocks: Blocks) -> float:
    """The value for all blocks, by the values at the points of `cuts`: f + sum over kinds of (n - n_few) df/dn."""
    few, base = points[0], values[0]
    slopes = [
        (blocks[kind] - few[kind]) * (value - base) / (point[kind] - few[kind])
        for point, value in zip(points[1:], values[1:], strict=True)
        for kind in blocks
        if point[kind] != few[kind]
    ]
    return base + sum(slopes)
