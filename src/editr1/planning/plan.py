"""What a run needs, before it starts: memory, time and money of a step, and the settings that make it fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from editr1.config.settings import Config
from editr1.editors.sharding import is_roomy
from editr1.errors import UserError, first_line
from editr1.planning.blocks import cuts
from editr1.planning.gpus import Gpus
from editr1.planning.pipelines import blueprint_of
from editr1.planning.ranks import Spread, refuse_rest
from editr1.planning.rehearsal import Stage, Step
from editr1.planning.workload import Load, Pace, extrapolate, load_of, peaks, seconds, times, unit_of
from editr1.toy.assets import locate

EFFICIENCY = 0.4
"""Share of a GPU's dense bfloat16 speed that a run is taken to reach: an assumption, until it was measured."""
GB, TERA = 1e9, 1e12
KNOWN = {
    "memory": ("gradient_checkpointing", "quantize", "offload", "cache", "vae_tiling"),
    "parallel": ("shard", "context", "timeout"),
    "rollout": ("group_size", "groups_per_step", "steps", "scheduler"),
    "optim": ("lr", "betas", "weight_decay", "grad_clip", "micro_batch"),
}
"""Settings that a plan takes account of, or that neither memory nor time depends on."""
REASONS = {
    "compile": "fused kernels need less memory and time than the planner counts",
    "attention": "the planner counts the memory of diffusers' default alone",
    "most_groups": "how many groups are drawn depends on the rewards",
}
Settings = Callable[[Sequence[str]], Config]


@dataclass(frozen=True)
class Plan:
    """A step of a run on some GPUs.

    Attributes:
        config: The run.
        gpus: Its GPUs, one process each.
        step: What one process did in the rehearsal, for all blocks.
        load: What the busiest process does in a step.
        extra: Bytes of a judge beside the trainer.
        efficiency: Share of a GPU's speed that is reached.
    """

    config: Config
    gpus: Gpus
    step: Step
    load: Load
    extra: float = 0.0
    efficiency: float = EFFICIENCY

    @cached_property
    def peaks(self) -> dict[str, float]:
        """GB at most on a GPU, by stage."""
        return {stage: (size + self.extra) / GB for stage, size in peaks(self.step, self.load).items()}

    @property
    def peak(self) -> float:
        """GB at most on a GPU."""
        return max(self.peaks.values())

    @property
    def fullest(self) -> str:
        """The stage with the peak."""
        return max(self.peaks, key=self.peaks.__getitem__)

    @property
    def fits(self) -> bool:
        """Whether the peak is less than a GPU has."""
        return self.peak <= self.gpus.kind.memory

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds of a step by stage, on the busiest process, without the judge."""
        kind, parallel = self.gpus.kind, self.config.parallel
        weights, tokens = self.gpus.weights(parallel.shard) * GB, self.gpus.tokens(parallel.context) * GB
        pace = Pace(kind.tflops * TERA * self.efficiency, host=kind.host * GB, weights=weights, tokens=tokens)
        return seconds(self.step, self.load, self.load.largest, pace, self.config.memory.cache is not None)

    @property
    def tflops(self) -> dict[str, float]:
        """10^12 operations of a step by stage, on the busiest process; those that checkpointing repeats included."""
        often = times(self.load, self.step, self.load.largest)
        return {stage: often[stage] * work.flops / TERA for stage, work in self.step.work.items()}

    @property
    def sent(self) -> dict[str, float]:
        """GB that the busiest process gets in a step from those that share its weights and tokens, by stage."""
        often = times(self.load, self.step, self.load.largest)
        return {stage: often[stage] * (work.weights + work.tokens) / GB for stage, work in self.step.work.items()}

    @property
    def parts(self) -> dict[str, float]:
        """GB at the peak, by what holds them."""
        work = self.step.work[self.fullest]
        more = self.load.waiting * self.step.group + self.step.layers.get(self.fullest, 0)
        held = {name: size for name, size in self.step.held.items() if size}
        activations = work.peak + more
        parts = {**held, "activations": activations, "judge": self.extra}
        return {name: size / GB for name, size in parts.items() if size}


class Planner:
    """Plans a run, and the changes that would make it fit.

    Args:
        settings: The run's settings with some overrides more.
        gpus: GPUs.
        extra: Bytes of a judge beside each trainer.
        efficiency: Share of a GPU's speed that is reached.
        dtype: Number format of the weights; None for that of a run on a GPU.
        remote: Whether edits are made while the judge computes.

    Raises:
        UserError: The planner does not know the editor or a setting.
    """

    def __init__(
        self,
        settings: Settings,
        gpus: Gpus,
        extra: float = 0.0,
        efficiency: float = EFFICIENCY,
        dtype: torch.dtype | None = None,
        remote: bool = True,
    ) -> None:
        self._settings, self.gpus, self._extra, self._efficiency = settings, gpus, extra, efficiency
        self._remote = remote
        config = settings(())
        self._dtype = dtype or dtype_of(config)
        self._stage = Stage(blueprint_of(locate(config.editor.path)), self._dtype)

    def plan(self, changes: Sequence[str] = ()) -> Plan:
        """The plan with some overrides more."""
        config = self._settings(changes)
        refuse_unknown(config)
        refuse_rest(config, self.gpus.total)
        load, blocks = load_of(config, self.gpus.total, self._remote), self._stage.blueprint.blocks
        points = cuts(blocks)
        small, spread = rehearsed(config, load), self._spread(config)
        try:
            steps = [self._stage.rehearse(small, point, spread) for point in points]
        except RuntimeError as error:
            raise UserError(
                f"a step fails with these settings, before any weight is there: {first_line(error)}"
            ) from error
        step = extrapolate(steps, points, blocks)
        return Plan(config, self.gpus, step, load, self._extra, self._efficiency)

    def weights(self, changes: Sequence[str]) -> float:
        """GB that the weights take at least with some overrides more, without a rehearsal."""
        config = self._settings(changes)
        return self._stage.weights(config.memory, self._spread(config)) / GB

    def _spread(self, config: Config) -> Spread:
        """What a process shares, as `open_config_editor` does it."""
        shard, memory = config.parallel.shard, config.memory
        encoders = 1 if memory.offload or memory.cache is not None else shard
        keeps = shard > 1 and config.adapter.mode == "lora"  # full policies gather weights in every call
        keeps = keeps and is_roomy(self.gpus.kind.memory * GB, self._stage.denoiser(memory))
        return Spread(shard, config.parallel.context, encoders, keeps)

    def fit(self, plan: Plan) -> tuple[list[str], Plan]:
        """The changes, each of which lowers the peak of memory, until the run fits or none is left; their plan.

        Weights are spread over the GPUs of a node first; quantised ones, which cannot be spread, come after that.
        """
        ways = []
        for changes in self.ways(plan.config):
            ways.append(self._search(plan, changes))
            if ways[-1][1].fits:
                return ways[-1]
        return min(ways, key=lambda way: way[1].peak)

    def _search(self, plan: Plan, changes: Sequence[str]) -> tuple[list[str], Plan]:
        """The changes out of these that help, tried in order, twice."""
        adopted, first = list[str](), plan
        for change in [*changes, *changes]:
            if plan.fits:
                break
            if change in adopted or not helps(change, plan):
                continue
            trial = [*adopted, change]
            try:
                size = self.weights(trial)
                better = self.plan(trial) if size <= self.gpus.kind.memory else None
            except UserError:  # the run refuses the change, or the editor cannot be trained so
                continue
            if better is None:  # it cannot fit yet
                adopted = trial if size < self.weights(adopted) else adopted
            elif better.peak < plan.peak:
                adopted, plan = trial, better
        if plan.config != self._settings(adopted):  # its weights alone do not fit
            try:
                plan = self.plan(adopted)
            except UserError:
                return [], first
        return self._cached(adopted, plan)

    def ways(self, config: Config) -> list[list[str]]:
        """What may save memory, in the order in which it is tried: that which costs the least time first."""
        memory, shard, is_lora = config.memory, config.parallel.shard, config.adapter.mode == "lora"
        fewest = unit_of(config)
        changes = {
            f"optim.micro_batch={fewest}": config.optim.micro_batch > fewest,
            f"parallel.shard={self.gpus.count}": shard == 1 < self.gpus.count and memory.quantize is None,
            "memory.gradient_checkpointing=true": not memory.gradient_checkpointing,
            "memory.offload=true": not memory.offload,
            "memory.quantize=nf4": memory.quantize is None and is_lora and shard == 1,
            "memory.vae_tiling=true": not memory.vae_tiling,
        }
        usable = [change for change, is_new in changes.items() if is_new]
        if not any("shard" in change for change in usable):
            return [usable]
        return [[change for change in usable if without not in change] for without in ("quantize", "shard")]

    def _cached(self, adopted: list[str], plan: Plan) -> tuple[list[str], Plan]:
        """With the cache, without which what is offloaded crosses the bus in every step."""
        if not plan.config.memory.offload or plan.config.memory.cache is not None:
            return adopted, plan
        adopted = [*adopted, "memory.cache=cache"]
        return adopted, replace(plan, config=self._settings(adopted))


def helps(change: str, plan: Plan) -> bool:
    """Whether a change may lower the peak of a plan."""
    if change.startswith(("optim.micro_batch", "memory.gradient_checkpointing")):
        return plan.fullest == "train"
    return plan.fullest in ("encode", "decode") or "vae_tiling" not in change


def dtype_of(config: Config) -> torch.dtype:
    """Number format of the weights on a GPU."""
    if config.editor.dtype == "auto":
        return torch.float32 if config.adapter.mode == "full" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, config.editor.dtype)
    return dtype


def rehearsed(config: Config, load: Load) -> Config:
    """The run of one process whose step is one group, the largest that a process makes."""
    update: dict[str, Any] = {
        "rollout": config.rollout.model_copy(update={"group_size": load.largest, "groups_per_step": 1}),
        "memory": config.memory.model_copy(update={"cache": None, "attention": None}),
        "adapter": config.adapter.model_copy(update={"init": None}),
        "evaluation": None,
        "rewards": {},
        "trackers": (),
        "save_every": 10**9,
    }
    return config.model_copy(update=update)


def refuse_unknown(config: Config) -> None:
    """Refuse settings whose memory and time the planner does not know: those that `KNOWN` does not name.

    Raises:
        UserError: There is one.
    """
    if config.algorithm.kl_share < 1:
        raise UserError("algorithm.kl_share below 1 cannot be planned: rows are drawn at random; plan without it")
    for section, known in KNOWN.items():
        for name, value in getattr(config, section).model_dump(mode="json", exclude_defaults=True).items():
            if name not in known and not (name == "attention" and value == "native"):
                reason = REASONS.get(name, "the planner does not know what it saves or costs")
                setting = f"{section}.{name}={json.dumps(value)}".replace('"', "")
                raise UserError(f"{setting} cannot be planned: {reason}; plan without it")
