"""The seam between the loop and an algorithm: the algorithm owns credit and loss, the loop owns order.

An algorithm is its settings and its maths: a subclass of `Algorithm`, in one file beside this one whose `name` has a
default, or in a user's own that a config names. It sees tensors alone: no model, no run, no logger. The loop
(`training/trainer.py`) calls, in this order, `noise` before every rollout; `credit` on the rewards of a step; `rows` on
every kept group; `asks` for the policies whose velocities it computes; `loss` on rows and velocities; and `old_decay`
after the optimiser step.

The base class gives edits the credit of Edit-R1 (arXiv 2510.16888) and noises each edit to several levels, as
DiffusionNFT (arXiv 2509.16117) and AWM (arXiv 2509.25050) do. Where a loss compares the edits of a group (`compares`),
they share levels and noise, and the rows of one level are side by side and in one call.

Letters: G edits of a group, S noise levels that the sampler visits, T levels an edit is trained at, B rows (one row is
one edit at one level), N tokens, C channels.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from editr1.algorithms.advantages import Filter, Std, filter_groups, is_solved, normalise
from editr1.algorithms.mixing import Rewards, Shares, mix
from editr1.algorithms.noise import StepNoise
from editr1.algorithms.thrift import (
    draw_levels,
    informative,
    rescale,
    sample_rows,
    spread_levels,
)

SchedulerName = Literal["dpm2", "euler"]
"""The samplers: DPM-Solver++(2M) for flow matching, and Euler."""
SomeRows = TypeVar("SomeRows", bound="Rows")
Velocities = Mapping[str, Tensor]
"""Velocities [B, N, C] of the same rows by policy: "default" with gradient, and those that `asks` names without.
"reference" has those of `Rows.compared` alone, and is missing if there are no such rows."""


@dataclass(frozen=True)
class Edits:
    """The edits of one group.

    Attributes:
        latents: Clean results x0 of the sampler, [G, N, C].
        advantages: [G]; NaN for an edit without reward.
        levels: Noise levels that the sampler visited, falling, [S], in [0, 1].
        trajectory: What the sampler went through from noise to `latents`, [S + 1, G, N, C]; None unless it is kept.
        transitions: Numbers a, b and std of its steps x_next = a x + b v + std z, [S, 3], on the CPU; None without
            noise.
        outside: Which tokens must stay as they are in the source, [N], some of them; None if that is not known.
        masked: Which tokens the mask has a part in, [N]; None if there is no mask.
        regions: Advantages of the tokens that it has a part in, and of the others, [2, G]; None if an edit has one.
    """

    latents: Tensor
    advantages: Tensor
    levels: Tensor
    trajectory: Tensor | None = None
    transitions: Tensor | None = None
    outside: Tensor | None = None
    masked: Tensor | None = None
    regions: Tensor | None = None

    @property
    def scored(self) -> list[int]:
        """Indices of the edits that have a reward."""
        return (~self.advantages.isnan()).nonzero()[:, 0].tolist()


@dataclass(frozen=True)
class Rows:
    """Noised edits.

    Attributes:
        x0: Clean latents, [B, N, C]; the loss is computed in their dtype.
        x_t: The same, noised, [B, N, C].
        t: Noise levels, [B], in (0, 1].
        advantages: [B]; no NaN.
        kl_weights: Weights of the distance to the untrained editor, [B], on the CPU; a row of weight 0 needs no
            velocity of "reference". None for 1 each.
        unit: Rows that the loss compares with each other, side by side; B is a multiple of it.
        regions: Advantages inside and outside of the mask, [B, 2]; None if the whole of an edit has its advantage.
        unmasked: Tokens outside of the mask, [B, N]; None likewise.
    """

    x0: Tensor
    x_t: Tensor
    t: Tensor
    advantages: Tensor
    kl_weights: Tensor | None = None
    unit: int = field(default=1, kw_only=True)
    regions: Tensor | None = field(default=None, kw_only=True)
    unmasked: Tensor | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self: SomeRows, part: slice | Tensor) -> SomeRows:
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        some = {name: value[part] for name, value in own.items() if isinstance(value, Tensor)}
        return replace(self, **some, unit=self.unit if isinstance(part, slice) else 1)

    @property
    def compared(self: SomeRows) -> SomeRows:
        """The rows whose velocity of "reference" the loss needs."""
        return self if self.kl_weights is None else self[self.kl_weights.nonzero()[:, 0]]

    def distance(self, velocities: Velocities) -> Tensor:
        """|v - v_ref|^2, the mean over rows, or its estimate from those that are compared; with gradient."""
        v = velocities["default"].to(self.x0.dtype)
        if self.kl_weights is None:
            return (v - velocities["reference"].detach().to(v.dtype)).square().mean()
        some = self.kl_weights.nonzero()[:, 0]
        if len(some) == 0:
            return v.new_zeros(())
        squares = (v[some] - velocities["reference"].detach().to(v.dtype)).square().mean(dim=(1, 2))
        return (self.kl_weights[some].to(squares) * squares).sum() / len(self)

    @property
    def credit(self) -> Tensor:
        """What errors are weighed by: advantages of the whole, [1, B], or inside and outside of the mask, [2, B]."""
        return self.advantages[None] if self.regions is None else self.regions.T

    @property
    def target(self) -> Tensor:
        """The velocity that leads to the edit, eps - x0 = (x_t - x0) / t, [B, N, C]."""
        return (self.x_t - self.x0) / self.t.to(self.x0.dtype)[:, None, None]

    def error(self, v: Tensor) -> Tensor:
        """The error of flow matching |v - (eps - x0)|^2 of each row, [B], for the velocity `v` [B, N, C]."""
        return (v - self.target).square().mean(dim=(1, 2))

    def split(self: SomeRows, size: int) -> Iterator[SomeRows]:
        """The rows, at most `size` at a time, or one `unit` if that is more; no unit is cut."""
        size = whole_units(size, self.unit)
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(frozen=True)
class Credit:
    """What the groups of a step are worth.

    Attributes:
        advantages: [G] per group; NaN for an edit without reward.
        dropped: Per group, the reason why it is not trained on; None if it is.
    """

    advantages: list[Tensor]
    dropped: list[str | None]


class Algorithm(BaseModel, ABC):
    """Settings that all algorithms share, and the parts of the seam that most of them have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    title: ClassVar[str]
    """Its name in reports and model cards."""
    parts: ClassVar[Mapping[str, str]]
    """Names of the parts that `loss` returns, each with its title for reports."""
    scheduler: ClassVar[SchedulerName | None] = None
    """The sampler that rollouts must use; None leaves it to `rollout.scheduler`. What adds `noise` needs "euler"."""
    keeps_trajectory: ClassVar[bool] = False
    """Whether `rows` needs `Edits.trajectory`."""
    compares: ClassVar[bool] = False
    """Whether the loss compares the edits of a group with each other, at the same level and noise."""
    weighs_regions: ClassVar[bool] = False
    """Whether the loss weighs errors by `Rows.credit`; one that overrides such a loss must do so too."""
    uses_rewards: ClassVar[bool] = True
    """Whether rewards decide what an edit counts; if not, every edit is trained on, as is right for good ones alone."""
    senseless: ClassVar[Mapping[str, str]] = {}
    """Settings that must keep their defaults, each with the reason why."""

    name: str
    """Which algorithm: "nft", "awm", "crd", "dgpo", "dpo", "rft", "sft", "grpo", or your own as "pkg.module:Class"."""
    kl: float = Field(default=1e-4, ge=0)
    """Weight of the distance to the untrained editor, on the velocity; 0 makes no reference call."""
    kl_share: float = Field(default=1.0, gt=0, le=1)
    """Share of a group's noised edits, drawn at random, on which that distance is estimated: fewer reference calls."""
    adv_clip: float = Field(default=5.0, gt=0)
    """A_max: advantages are clipped to +-A_max."""
    std: Std = "global"
    """Advantages are divided by the std of all rewards of the step, or of their group."""
    filter: Filter = "paper"
    """Drop groups that are good AND agree (paper), OR (released code), or none."""
    tau_mu: float = Field(default=0.9, ge=0, le=1)
    """Filter: mean reward above which a group counts as good."""
    tau_sigma: float = Field(default=0.05, ge=0)
    """Filter: std below which a group agrees."""
    timesteps: Literal["sampler", "uniform"] = "sampler"
    """Edits are noised to levels that their rollout visited, as in the released code, or to any in (0, 1)."""
    timesteps_per_image: int | None = Field(default=None, gt=0)
    """Noise levels per edit, without repeats; null for rollout.steps - 1, as in the released code."""
    stratified: bool = False
    """Noise levels are spread over the edits of a group evenly, instead of drawn for each edit alone."""
    informative: float = Field(default=1.0, gt=0, le=1)
    """Share of a group's scored edits that are trained on, those with the largest |advantage|."""
    rescaled: bool = False
    """Their advantages are scaled down to what all edits of the group weigh on average (with `informative`)."""
    old_rate: float = Field(default=0.001, ge=0)
    """Decay of the sampling policy after step s is min(old_rate * s, old_cap)."""
    old_cap: float = Field(default=0.5, ge=0, lt=1)
    """Upper end of that decay."""

    @model_validator(mode="after")
    def _sensible(self) -> Algorithm:
        for setting, reason in self.senseless.items():
            if (value := getattr(self, setting)) != type(self).model_fields[setting].default:
                raise ValueError(f"algorithm.{setting}={value} makes no sense with algorithm {self.name!r}: {reason}")
        return self

    @property
    def needs_whole_step(self) -> bool:
        """Whether `credit` needs the rewards of all groups of a step at once; if not, it takes any of them."""
        return self.std == "global"

    @property
    def tells_distance(self) -> bool:
        """Whether the loss's part `kl` is |v - v_ref|^2 itself, the mean over rows that count alike."""
        return "kl" in self.parts and "reference" in self.asks(0)

    def credit(self, rewards: Sequence[Tensor], parts: Rewards | None = None, weights: Shares | None = None) -> Credit:
        """Advantages within groups, and the groups that are not worth training on.

        Args:
            rewards: [G] per group, in [0, 1], or NaN.
            parts: The rewards that were mixed into `rewards`, by name, likewise; each is normalised on its own.
            weights: Of the parts, by name, one each or one per group; none if there is one reward.
        """
        advantages = mix(parts or {}, weights, self.std) if weights else normalise(rewards, self.std)
        return Credit(advantages, filter_groups(rewards, self.filter, self.tau_mu, self.tau_sigma))

    def solves(self, rewards: Tensor) -> bool:
        """Whether the edits of an item, with these rewards [G], are so good that it has nothing left to teach."""
        return is_solved(rewards, self.tau_mu, self.tau_sigma)

    def noise(self, step: int, visited: int, generator: torch.Generator) -> StepNoise | None:
        """What the sampler of a group adds to its `visited` steps at `step` (from 0), on Euler's; None for nothing."""
        return None

    def fault(self, visited: int) -> str | None:
        """Why the settings do not fit a sampler that visits `visited` levels, in words; None if they do."""
        levels = self.levels_per_edit(visited)
        if self.timesteps == "sampler" and levels > visited:
            return (
                f"algorithm.timesteps_per_image={levels} is more than the {visited} noise levels of rollout.steps; "
                'lower it or set algorithm.timesteps to "uniform"'
            )
        return None

    def levels_per_edit(self, visited: int) -> int:
        """T, for a sampler that visits `visited` levels."""
        return self.timesteps_per_image or visited - 1

    def choose(self, advantages: Tensor) -> list[int]:
        """Indices of the edits of a group that are trained on, by their advantages [G]; NaN for one without reward."""
        return informative(advantages, self.informative)

    def unit(self, advantages: Tensor) -> int:
        """How many rows of such a group must stay together: `Rows.unit`."""
        return max(len(self.choose(advantages)), 1) if self.compares else 1

    def count(self, edits: Edits) -> int:
        """How many rows `rows` returns."""
        return len(self.choose(edits.advantages)) * self.levels_per_edit(len(edits.levels))

    def rows(self, edits: Edits, generator: torch.Generator) -> Rows:
        """The edits that `choose` names, each noised to T levels: x_t = (1 - t) x0 + t eps.

        The draws of eps do not depend on which they are. Rows are in the order of the edits, or of the levels if the
        loss compares the edits at a level.
        """
        chosen, device = self.choose(edits.advantages), edits.latents.device
        count = self.levels_per_edit(len(edits.levels))
        t = self._levels(edits, chosen, count, generator).to(device)  # n T
        draws = 1 if self.compares else len(edits.latents)
        eps = torch.randn(draws, count, *edits.latents.shape[1:], generator=generator).to(device)  # G T N C, or 1 T N C
        eps = eps.expand(len(chosen), -1, -1, -1) if self.compares else eps[chosen]  # n T N C
        x0 = edits.latents[chosen, None].expand_as(eps)
        advantages = self.row_advantages(edits.advantages, chosen)[:, None].expand(-1, count)  # n T
        x0, t, eps, advantages = map(self._in_line, (x0, t, eps, advantages))  # B ...
        x_t = (1 - t[:, None, None]) * x0 + t[:, None, None] * eps
        weights = self.kl_weights(advantages, generator)
        rows = Rows(x0, x_t, t, advantages.to(device), weights, unit=self.unit(edits.advantages))
        return self._by_region(rows, edits, chosen, count)

    def row_advantages(self, advantages: Tensor, chosen: list[int]) -> Tensor:
        """What the chosen edits of a group count in the loss, [n], by the advantages [G] of all."""
        return rescale(advantages, chosen, self.adv_clip) if self.rescaled else advantages[chosen]

    def kl_weights(self, advantages: Tensor, generator: torch.Generator) -> Tensor | None:
        """`Rows.kl_weights` for rows with these advantages, [B] on the CPU."""
        return sample_rows(len(advantages), self.kl_share, generator) if self.kl > 0 and self.kl_share < 1 else None

    def _by_region(self, rows: Rows, edits: Edits, chosen: list[int], count: int) -> Rows:
        """The rows with advantages by region, if their edits have them."""
        if edits.masked is None or edits.regions is None:
            return rows
        regions = edits.regions.T[chosen, None].expand(-1, count, -1)  # n T 2
        unmasked = (~edits.masked).expand(len(chosen), count, -1)  # n T N
        regions, unmasked = (self._in_line(each).to(rows.t.device) for each in (regions, unmasked))  # B ...
        return replace(rows, regions=regions, unmasked=unmasked)

    def _in_line(self, values: Tensor) -> Tensor:
        """Values [n, T, ...] of edits at levels as rows, [B, ...]."""
        return (values.transpose(0, 1) if self.compares else values).flatten(0, 1)

    def _levels(self, edits: Edits, chosen: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
        """The noise levels of the chosen edits, [n, T]."""
        visited = None if self.timesteps == "uniform" else edits.levels
        total, n, places = (1, 1, [0] * len(chosen)) if self.compares else (len(edits.latents), len(chosen), chosen)
        if self.stratified:
            return spread_levels(visited, total, n, count, generator).expand(len(chosen), -1)
        return draw_levels(visited, total, count, generator)[places]

    def add_distance(self, loss: Tensor, rows: Rows, velocities: Velocities) -> tuple[Tensor, Tensor]:
        """The loss plus `kl` times the distance to the untrained editor, and the bare distance; 0 if not known."""
        if "reference" not in velocities:
            return loss, torch.zeros_like(loss)
        distance = rows.distance(velocities)
        return (loss + self.kl * distance if self.kl > 0 else loss), distance

    def asks(self, step: int) -> tuple[str, ...]:
        """The policies besides "default" whose velocities the loss needs at `step` (from 0).

        Those of most algorithms: the old policy, and the reference if the distance to it has a weight.
        """
        return ("old", "reference") if self.kl > 0 else ("old",)

    @abstractmethod
    def loss(self, rows: Rows, velocities: Velocities) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a mean over the rows, and its parts by name, detached. It does not wait for the device.

        Being a mean over rows, it splits: of M rows, take B_j at a time and back-propagate (B_j / M) * loss_j. The sum
        over j is the loss of all M rows at once; so are the sums of the parts.
        """

    def old_decay(self, step: int) -> float:
        """Decay d of theta_old <- d theta_old + (1 - d) theta after step `step` (from 0).

        Small at first, so that sampling is on-policy; later the old policy is the steadier one.
        """
        return min(self.old_rate * step, self.old_cap)


def whole_units(size: int, unit: int) -> int:
    """Rows of a call of at most `size`, so that units are whole; at least one unit."""
    return max(size // unit, 1) * unit


def algorithm_of(settings: Mapping[str, Any]) -> type[Algorithm]:
    """The algorithm that settings name; DiffusionNFT if they name none.

    Raises:
        ValueError: There is none of this name.
    """
    name, algorithms = settings.get("name", "nft"), find_algorithms()
    if not isinstance(name, str) or name not in algorithms:
        known = ", ".join([*algorithms, "your own as pkg.module:Class"])
        raise ValueError(f"algorithm.name: no algorithm is called {name!r}; there are {known}")
    return algorithms[name]


def find_algorithms() -> dict[str, type[Algorithm]]:
    """The algorithms of this folder, by name; a user's own, which may build on one of them, is no other of its name."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        import_module(f"editr1.algorithms.{module.name}")
    whole = [kind for kind in _subclasses(Algorithm) if not isabstract(kind)]
    ours = [kind for kind in whole if kind.__module__.startswith("editr1.algorithms.")]
    return {kind.model_fields["name"].default: kind for kind in ours}


def _subclasses(kind: type[Any]) -> Iterator[type[Algorithm]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)
