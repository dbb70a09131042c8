"""Online Diffusion-DPO (arXiv 2311.12908): the best edit of each group against its worst.

Both are noised to the same level by the same noise. For w the better and l the worse:

    m = 1/2 [ (e_w(v_ref) - e_w(v)) - (e_l(v_ref) - e_l(v)) ],    e(u) = |u - (eps - x0)|^2
    L = -mean log sigmoid(beta m) / beta + kl * |v - v_ref|^2

|.|^2 is the mean over the N tokens and C channels of one image, and the velocity of flow matching takes the place of
the paper's noise; its factor T w(t) is constant here and inside beta. Scale, 1/2 and the shared noise are those of
Flow-Factory (X-GenGroup); the authors' own code could not be read. Dividing by beta is ours: it keeps the step
independent of beta, so that `kl` and the clip of gradients mean what they mean elsewhere. At v = v_ref, and for
beta -> 0, the gradient is that of (e_w(v) - e_l(v)) / 4. A group without a best edit, whose edits all have the same
advantage, has no rows. How much better an edit is does not count, so `adv_clip` has no effect and `std` one on the
filter alone.

Letters: B rows (best and worst side by side), N tokens, C channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editr1.algorithms.base import Rows
from editr1.algorithms.preference import Preference


class DPO(Preference):
    """Online Diffusion-DPO (arXiv 2311.12908) on the best and the worst edit of a group."""

    title: ClassVar = "Diffusion-DPO"

    name: Literal["dpo"] = "dpo"
    """Which algorithm."""
    beta: float = Field(default=2000.0, gt=0)
    """How soon a pair counts as decided: the larger, the nearer the policy stays to the untrained editor."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of a further distance to the untrained editor, on the velocity; the paper has none."""

    def choose(self, advantages: Tensor) -> list[int]:
        """The best edit and the worst, the first of equals; none if all are equal."""
        pair = [int(advantages.nan_to_num(-torch.inf).argmax()), int(advantages.nan_to_num(torch.inf).argmin())]
        return pair if advantages[pair[0]] > advantages[pair[1]] else []

    def weights(self, rows: Rows) -> Tensor:
        """1 for the better edit of each pair and -1 for the worse, [B]."""
        return 1 - 2 * (torch.arange(len(rows), device=rows.x0.device) % 2)
