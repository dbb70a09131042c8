"""An algorithm of your own: settings, and a loss of tensors. `python examples/own_algorithm.py`.

In a config: `algorithm: {name: "own_algorithm:Imitation", keep: 0.5}`. What it does not override (credit, noise levels,
the sampling policy's pace) is as in the shipped ones.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from editr1 import Algorithm, Rows, load_config, open_trainer


class Imitation(Algorithm):
    """Flow matching on the edits that are better than their group: supervised training on the best of G."""

    title: ClassVar = "Imitation of the best"
    parts: ClassVar = {"used": "Share of edits that are imitated"}

    keep: float = Field(default=0.0, ge=0)
    """Advantage above which an edit is imitated."""

    def asks(self, step: int) -> tuple[str, ...]:
        """No policy but the trained one."""
        return ()

    def loss(self, rows: Rows, velocities: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over rows of |v - (eps - x0)|^2, where the advantage is high enough."""
        used = (rows.advantages > self.keep).to(rows.x0.dtype)  # B
        error = (velocities["default"] - rows.target).square().mean(dim=(1, 2))  # B
        return (used * error).mean(), {"used": used.mean()}


if __name__ == "__main__":
    small = ["rollout.groups_per_step=2", "rollout.group_size=4", "steps=2", "out=runs/own_algorithm"]
    trainer = open_trainer(load_config("toy", [*small, "algorithm={name: 'own_algorithm:Imitation', keep: 0.5}"]))
    trainer.train(on_step=lambda row: print(row["step"], row["loss"], row["used"]))
