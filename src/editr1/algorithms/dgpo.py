"""Direct Group Preference Optimization (DGPO, arXiv 2510.08425): the good edits of a group against the bad ones.

A group's edits are one preference, G+ (A_i > 0) over G- (A_i < 0), each edit with the weight |A_i|; as the advantages
of a group sum to 0, the constant of its prompt cancels. Of n edits at one level and one noise:

    m = mean_i A_i (e_i(v_ref) - e_i(v)),    e(u) = |u - (eps - x0)|^2
    L = -mean log sigmoid(beta m) / beta + kl * |v - v_ref|^2

|.|^2 is the mean over the N tokens and C channels of one image; A is clipped to +-A_max. The gradient is that of
sigmoid(-beta m) A_i e_i(v): flow matching weighted by the advantage, fading as the group is decided. At v = v_ref, and
for beta -> 0, that factor is 1/2. Dividing by beta, as the published code does, keeps the step independent of it.

The preference of groups is the paper's as its README states it; weights, scale and defaults are read from the published
code (Luo-Yihong/DGPO), as the paper's own equations could not be read. Left out of that code: its clip of ratios to a
fast average of the weights, levels above a least one only, the reference under classifier-free guidance.

Letters: B rows, N tokens, C channels, n edits of a group.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from editr1.algorithms.base import Rows
from editr1.algorithms.preference import Preference


class DGPO(Preference):
    """Direct Group Preference Optimization (arXiv 2510.08425)."""

    title: ClassVar = "DGPO"

    name: Literal["dgpo"] = "dgpo"
    """Which algorithm."""
    beta: float = Field(default=100.0, gt=0)
    """How soon a group counts as decided: the larger, the nearer the policy stays to the untrained editor."""

    def weights(self, rows: Rows) -> Tensor:
        """The clipped advantages, [B]."""
        return rows.advantages.clamp(-self.adv_clip, self.adv_clip)
