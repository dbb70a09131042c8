"""What losses of preferences share: between the halves of a group (`dgpo.py`), and between two edits (`dpo.py`).

Of n rows that are compared, each with a weight W_i, above 0 for one that should become likelier:

    m = mean_i W_i (e_i(v_ref) - e_i(v)),    e(u) = |u - (eps - x0)|^2
    L = -mean log sigmoid(beta m) / beta + kl * |v - v_ref|^2

Letters: B rows, n rows that are compared, N tokens, C channels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from editr1.algorithms.base import Algorithm, Rows, Velocities


class Preference(Algorithm):
    """The logistic loss of a preference, in which the untrained editor is the reference."""

    parts: ClassVar = {
        "preference": "Preference loss",
        "decided": "Share of comparisons decided as the judge does",
        "kl": "Distance to the untrained editor (KL)",
    }
    compares: ClassVar = True
    senseless: ClassVar = {
        "kl_share": "its loss needs the untrained editor on every row; leave it at 1",
        "informative": "it compares a whole group, or the best edit and the worst; leave it at 1",
        "rescaled": "that goes with algorithm.informative; leave it at false",
    }

    beta: float = Field(gt=0)
    """How soon a comparison counts as decided: the larger, the nearer the policy stays to the untrained editor."""

    @abstractmethod
    def weights(self, rows: Rows) -> Tensor:
        """W of each row, [B]."""

    def asks(self, step: int) -> tuple[str, ...]:
        """The reference, whatever the weight of the distance to it."""
        return ("reference",)

    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the module's formula; its part `kl` is the bare distance, told without a weight too."""
        v, v_ref = (velocities[name].to(rows.x0.dtype) for name in ("default", "reference"))
        likelier = rows.error(v_ref.detach()) - rows.error(v)  # B
        margins = (self.weights(rows).to(likelier) * likelier).reshape(-1, rows.unit).mean(dim=1)  # B/n
        preference = -logsigmoid(self.beta * margins).mean() / self.beta
        decided = (margins > 0).to(preference.dtype).mean()
        loss, kl = self.add_distance(preference, rows, velocities)
        return loss, {"preference": preference.detach(), "decided": decided, "kl": kl.detach()}
