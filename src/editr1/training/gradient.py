"""The gradient of a step: of the mean loss over all rows of all ranks, added up call by call.

Where groups are trained on one by one, the number of rows is known at the end alone. Calls are then weighted as if no
group were dropped, and the sum is brought to the true number, which changes nothing where none is.

Letters: B rows of a call, N tokens, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from editr1.algorithms.base import Algorithm, Edits, Rows
from editr1.config.settings import OptimConfig, RolloutConfig
from editr1.editors.editor import Editor
from editr1.editors.recorder import Conditioning
from editr1.errors import UserError
from editr1.training.exchange import Judged, total_norm


class Gradient:
    """Adds up in the `grad` of the trained weights, which is empty at first.

    Args:
        optimizer: Has these weights.
        algorithm: Names the parts of its loss.
        rows: Number of rows by which calls are divided.

    Attributes:
        sums: Loss and parts of this rank, added up likewise, [1 + parts].
    """

    def __init__(self, optimizer: torch.optim.Optimizer, algorithm: Algorithm, rows: int) -> None:
        self.params: list[Tensor] = optimizer.param_groups[0]["params"]
        self.rows, self._names = rows, ("loss", *algorithm.parts)
        self.sums = torch.zeros(len(self._names), device=self.params[0].device)
        optimizer.zero_grad()

    def add(self, loss: Tensor, parts: Mapping[str, Tensor], weight: float) -> None:
        """Back-propagate the mean loss of B rows, which weigh `weight` rows: B, or 0 for a call without effect."""
        share = weight / self.rows
        (share * loss).backward()
        self.sums += share * torch.stack([loss.detach(), *(parts[name] for name in self._names[1:])])

    @torch.no_grad()
    def divide_by(self, rows: int) -> None:
        """Make it the gradient of the mean over `rows` rows."""
        if rows not in (0, self.rows):
            for tensor in (self.sums, *(param.grad for param in self.params if param.grad is not None)):
                tensor *= self.rows / rows
            self.rows = rows

    def losses(self, rows: int) -> dict[str, float | None]:
        """Loss and its parts by name; None if there are no rows."""
        return dict(zip(self._names, self.sums.tolist(), strict=True)) if rows else dict.fromkeys(self._names)


def velocities_of(
    editor: Editor, conditioning: Conditioning, rows: Rows, asked: Collection[str]
) -> Mapping[str, Tensor]:
    """The velocities [B, N, C] of "default", through which gradients flow, and of the other policies that are asked.

    The reference is asked for the rows that are compared with it alone.
    """
    policies = editor.policies
    velocities = {"default": editor.velocity(conditioning, rows.x_t, rows.t)}
    for name in asked:
        needed = rows.compared if name == "reference" else rows
        if name == "old" and policies.on_policy:
            velocities[name] = velocities["default"].detach()
        elif len(needed) or editor.is_sharded:
            some = needed if len(needed) else rows[:1]  # a call for the sake of other ranks
            with torch.no_grad(), policies.using(name):
                velocities[name] = editor.velocity(conditioning, some.x_t, some.t)
    return velocities


def count_rows(algorithm: Algorithm, kept: Sequence[Judged]) -> list[tuple[int, int, int]]:
    """Of each kept group its index, its number of rows, and how many of them must stay together."""
    return [(each.index, algorithm.count(each.edits), algorithm.unit(each.edits.advantages)) for each in kept]


def one_by_one(algorithm: Algorithm, rollout: RolloutConfig, ranks: int) -> bool:
    """Whether each group of a step is trained on as soon as it is judged."""
    return ranks == 1 < rollout.groups_per_step and not algorithm.needs_whole_step


def full_rows(algorithm: Algorithm, rollout: RolloutConfig) -> int:
    """Rows of a group whose edits all have a reward, half of them a good one."""
    size = rollout.group_size
    return algorithm.count(Edits(torch.empty(size, 0, 0), torch.linspace(-1, 1, size), torch.zeros(rollout.steps)))


def clip(params: Sequence[Tensor], step: int, optim: OptimConfig, algorithm: Algorithm) -> float:
    """Clip the gradient of a step; its norm before.

    Raises:
        UserError: It is not finite.
    """
    norm = total_norm(param.grad for param in params if param.grad is not None)
    clip_grads_with_norm_(params, optim.grad_clip, norm)
    if not math.isfinite(norm):
        raise UserError(
            f"the gradient of step {step} is not finite, the weights are as before it; lower optim.lr (now {optim.lr}) "
            f"or raise algorithm.kl (now {algorithm.kl}) in a new run"
        )
    return float(norm)
