"""A loss that holds what must stay near the source, in latents (after CoCoEdit, arXiv 2602.14068).

For a row with the clean estimate x0hat = x_t - t v of the trained policy, the source's latents s and the tokens O that
must stay:

    d = mean over O and channels of (x0hat - s)^2,    L = mean over rows of r max(d - margin, 0)

r is the optimality of DiffusionNFT: an edit that is good as a whole is held most, and a bad one, which the loss of the
algorithm pushes away, is left to it.

CoCoEdit's released code (`flow_grpo/loss.py`) holds the estimate of the positive policy near the edit x0 itself there,
and has a second term that pushes the negative policy's estimate away from the source inside of the mask; its weight is
0 by default. The formula in the paper could not be read. Left out here: that term, and a ring around the mask.

Letters: B rows, N tokens, C channels.
"""

from __future__ import annotations

from torch import Tensor

from editr1.algorithms.base import Edits, Rows
from editr1.algorithms.nft import optimality


def outside_loss(rows: Rows, v: Tensor, edits: Edits, source: Tensor, clip: float, margin: float) -> Tensor:
    """The loss L of the module's formula, a mean over the rows, with the gradient of `v`; 0 if no token must stay.

    Args:
        rows: Rows of one group.
        v: Velocities of the trained policy, [B, N, C].
        edits: Of the group; `outside` says which tokens must stay.
        source: Latents of the group's source, [N, C].
        clip: A_max.
        margin: Mean square that costs nothing, at least 0.
    """
    if edits.outside is None:
        return v.new_zeros(())
    t = rows.t.to(v.dtype)[:, None, None]  # B 1 1
    error = (rows.x_t - t * v - source).square().mean(dim=-1)  # B N
    distance = error[:, edits.outside].mean(dim=-1)  # B
    r = optimality(rows.advantages, clip).to(v.dtype)
    return (r * (distance - margin).clamp(min=0)).mean()
