"""Flow-GRPO (arXiv 2505.05470): a clipped policy gradient on the steps of the sampler that have noise.

Such a step is a Gaussian, whose numbers a, b and std follow from its levels (`editors/sde.py`):

    log p(v) = log N(x_next; a x_t + b v, std^2),   ratio = p(v) / p(v_old),   A = clip(A, -A_max, A_max)
    L = -mean_i min( A_i ratio_i, A_i clip(ratio_i, 1-c, 1+c) ) + kl * |b (v - v_ref)|^2 / (2 std^2)

log p and |.|^2 are means over the N tokens and C channels of one image, as in the published code: hence clip ranges as
small as 1e-4. With the noise z = (x_next - a x_t - b v_old) / std that was drawn, and d = b (v - v_old) / std, the log
ratio is the mean of d z - d^2 / 2. It is 0 at v = v_old, where the gradient is that of -A log p (REINFORCE).

`guard` is GRPO-Guard (arXiv 2510.22319): the log ratio is the mean of std d z, without d^2 / 2, which pulls it below 0,
and without 1 / std, by which it would differ from step to step; -min(..) of row i is divided by its s_i - t_i.

`window` is that of Flow-GRPO-Fast, with a place drawn for each group, or of MixGRPO (arXiv 2507.21802), moving on.

Read: the published code of Flow-GRPO (its log p of "cps" lacks the factor 1 / (2 std^2), ours is the Gaussian's), and
of the guard a descendant of that code. Not verified: the equations of the papers of MixGRPO and GRPO-Guard, read in
abstracts and descriptions. Left out: noise in the last step, one start for a whole group, several optimiser steps on
one set of rollouts, MixGRPO's faster solver behind its window, guidance above 1.

Letters: G edits of a group, T of their steps with noise that each is trained at, B rows, N tokens, C channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from editr1.algorithms.base import Algorithm, Edits, Rows, SchedulerName, Velocities
from editr1.algorithms.noise import NoiseKind, StepNoise
from editr1.algorithms.transitions import Transitions


class GRPO(Algorithm):
    """Flow-GRPO (arXiv 2505.05470), its windows of steps, and GRPO-Guard."""

    title: ClassVar = "Flow-GRPO"
    parts: ClassVar = {
        "policy": "Policy loss",
        "clipped": "Share of clipped ratios",
        "kl": "KL divergence of steps from the untrained editor's",
    }
    scheduler: ClassVar[SchedulerName | None] = "euler"
    tells_distance: ClassVar = False
    keeps_trajectory: ClassVar = True

    name: Literal["grpo"] = "grpo"
    """Which algorithm."""
    noise_kind: NoiseKind = "flow"
    """Noise of Flow-GRPO, or coefficients-preserving sampling (arXiv 2509.05952), which leaves none in the picture."""
    noise_level: float = Field(default=0.7, gt=0, le=1)
    """Size of the noise: a of Flow-GRPO, or eta of cps."""
    window: int | None = Field(default=None, gt=0)
    """Sampler steps with noise, in a row; null for all but the last."""
    shift_every: int | None = Field(default=None, gt=0)
    """Optimiser steps after which `window` moves on by one, as in MixGRPO; null draws its place for each group."""
    timesteps: Literal["sampler"] = "sampler"
    """Edits are trained at the steps of their rollout."""
    timesteps_per_image: int | None = Field(default=None, gt=0)
    """Steps with noise that an edit is trained at, drawn without repeats; null for all."""
    kl: float = Field(default=0.04, ge=0)
    """Weight of the KL divergence of a step from the untrained editor's; 0 makes no reference call."""
    clip_range: float = Field(default=1e-4, gt=0)
    """c: ratios outside [1 - c, 1 + c] get no gradient that leads further out."""
    guard: bool = False
    """Normalise ratios and weigh steps as in GRPO-Guard."""
    old_rate: float = Field(default=0.0, ge=0)
    """Decay of the sampling policy after step s is min(old_rate * s, old_cap); 0 samples by the trained policy."""

    def noise(self, step: int, visited: int, generator: torch.Generator) -> StepNoise:
        """Noise in the window of a group."""
        size = self.window or visited - 1
        places = visited - size  # of windows that leave out the last step
        drawn = int(torch.randint(places, (), generator=generator))
        start = drawn if self.shift_every is None else step // self.shift_every % places
        return StepNoise(self.noise_kind, self.noise_level, range(start, start + size))

    def fault(self, visited: int) -> str | None:
        """A window, or levels per edit, that are more than there are steps with noise; a window that cannot move."""
        most, levels, shift = self.window or visited - 1, self.timesteps_per_image, self.shift_every
        if most >= visited:
            return (
                f"algorithm.window={most}: the last of rollout.steps={visited} has no noise; give at most {visited - 1}"
            )
        if shift is not None and most == visited - 1:
            return (
                f"algorithm.shift_every={shift}: all steps with noise are in the window, which has nowhere to move; "
                "give a smaller algorithm.window, or leave shift_every out"
            )
        if levels is not None and levels > most:
            return (
                f"algorithm.timesteps_per_image={levels}: an edit has noise in {most} of its steps; give that, or null"
            )
        return None

    def levels_per_edit(self, visited: int) -> int:
        """T, for a sampler that visits `visited` levels."""
        return self.timesteps_per_image or self.window or visited - 1

    def rows(self, edits: Edits, generator: torch.Generator) -> Transitions:
        """The scored edits, or the most informative of them, each at T of the steps that have noise."""
        assert edits.trajectory is not None and edits.transitions is not None, "the sampler added noise"
        chosen, count = self.choose(edits.advantages), self.levels_per_edit(len(edits.levels))
        noisy = replace(edits, levels=edits.transitions[:, 2].nonzero()[:, 0])
        steps = self._levels(noisy, chosen, count, generator).flatten()  # B
        own = torch.tensor(chosen, dtype=torch.long).repeat_interleave(count)  # B
        t = torch.cat([edits.levels, edits.levels.new_zeros(1)])
        x, device = edits.trajectory, edits.latents.device
        advantages = self.row_advantages(edits.advantages, chosen).repeat_interleave(count)  # B
        return Transitions(
            edits.latents[own],
            x[steps, own],
            t[steps],
            advantages.to(device),
            self.kl_weights(advantages, generator),
            x_next=x[steps + 1, own],
            numbers=edits.transitions[steps].to(device),
            dt=t[steps] - t[steps + 1],
        )

    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the module's formula; its part `kl` is the bare divergence."""
        assert isinstance(rows, Transitions), "they are of `rows`"
        (_, b, std), c = rows.abstd, self.clip_range
        v, v_old = velocities["default"].to(b.dtype), velocities["old"].detach().to(b.dtype)
        z, d = rows.drawn(v_old), b * (v - v_old) / std
        ratio = (std * d * z if self.guard else d * z - d.square() / 2).mean(dim=(1, 2)).exp()  # B
        advantages = rows.advantages.clamp(-self.adv_clip, self.adv_clip).to(b.dtype)
        gains = torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - c, 1 + c))
        policy = -(gains / rows.dt.to(b.dtype) if self.guard else gains).mean()
        kl = rows.distance(velocities) if self.kl > 0 else torch.zeros_like(policy)
        clipped = ((ratio - 1).abs() > c).to(b.dtype).mean()
        return policy + self.kl * kl, {"policy": policy.detach(), "clipped": clipped, "kl": kl.detach()}
