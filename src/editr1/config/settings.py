"""The settings of a run: typed, with the values of Edit-R1 (arXiv 2510.16888) as defaults; sources: docs/recipe.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, model_validator

from editr1.algorithms.base import Algorithm, algorithm_of
from editr1.algorithms.base import SchedulerName as SchedulerName
from editr1.algorithms.nft import NFT
from editr1.algorithms.noise import StepNoise as StepNoise
from editr1.config.data import STORED, DataConfig, EvaluationConfig, Seed, fault_of_stored
from editr1.config.own_code import load_algorithm
from editr1.config.rewards import JudgeConfig, JudgeRewardConfig, RewardConfig, fault_of_kinds, products_of
from editr1.config.section import Section, as_meant, is_toy
from editr1.config.watching import FailureConfig, KeptConfig, WatchConfig, fault_by_region

AdapterMode = Literal["lora", "full"]
TrackerName = Literal["tensorboard", "wandb", "trackio"]
Quantization = Literal["nf4", "int8"]
Decay = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]


LOOKED_AT = {"purpose": "looked at"}
"""Context in which the settings of a run are read that does not go on."""
TOY_PIXELS = 64 * 64
"""The only area of a toy editor's pictures."""


class EditorConfig(Section):
    """The editor to train."""

    path: str
    """A diffusers pipeline: a folder, a hub name, or "toy:NAME" for a shipped one ("toy": toy:qwen-image-edit)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the weights: bfloat16 on a GPU and float32 on a CPU (auto), or one of them. Auto is float32 for
    `adapter.mode: full`, as bfloat16 would round small steps away."""
    device: str = "auto"
    """"auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"."""
    guidance: float | None = Field(default=None, ge=0)
    """Guidance scale of training; null for the default of the editor's family."""
    pixels: int | None = Field(default=512 * 512, gt=0, le=100_000_000)
    """Area of source and edit in pixels (64x64 by default for a toy); null for the pipeline's own."""
    text_tokens: int | None = Field(default=None, gt=0, le=100_000)
    """Length to which prompts are padded, and above which they are refused (FLUX: 512 by default); null for the
    pipeline's own."""

    @model_validator(mode="before")
    @classmethod
    def _toy(cls, settings: Any) -> Any:
        """A toy's name and area."""
        if not isinstance(settings, dict) or not is_toy(settings.get("path")):
            return settings
        path = "toy:qwen-image-edit" if settings["path"] == "toy" else settings["path"]
        return {"pixels": TOY_PIXELS, **settings, "path": path}


class RolloutConfig(Section):
    """How edits for training are sampled."""

    group_size: int = Field(default=12, ge=1, le=10_000)
    """G: edits of one item, compared with each other; of stored edits, as many as an item has."""
    groups_per_step: int = Field(default=24, gt=0, le=100_000)
    """Items per step."""
    most_groups: int | None = Field(default=None, gt=0, le=1_000_000)
    """Items per step at most: in place of groups that are dropped others are drawn, until groups_per_step are kept (as
    in DAPO, arXiv 2503.14476); null draws none."""
    save_groups: bool = False
    """Keep the edits of every step, as latents with their rewards, in the run's folder: data.kind "groups" trains on
    them again (docs/offline.md says how much room they take)."""
    steps: int = Field(default=6, ge=2, le=1000)
    """Denoiser calls per edit."""
    scheduler: SchedulerName = "dpm2"
    """Sampler: DPM-Solver++(2M) for flow matching, or Euler."""
    scouts: int | None = Field(default=None, gt=0, le=10_000)
    """Edits per item that are made by scout_steps and judged; the best and the worst, group_size together, are made
    again from the same noise by all steps (as in Sol-RL, arXiv 2604.06916), and these are trained on; null for none."""
    scout_steps: int = Field(default=3, ge=2, le=1000)
    """Denoiser calls per scout."""

    @model_validator(mode="after")
    def _cheaper_scouts(self) -> RolloutConfig:
        if self.scouts is not None and self.scouts <= self.group_size:
            raise ValueError(
                f"rollout.scouts={self.scouts} leaves no choice; give more than rollout.group_size={self.group_size}, "
                "or null"
            )
        if self.scouts is not None and self.scout_steps >= self.steps:
            raise ValueError(
                f"rollout.scout_steps={self.scout_steps} makes scouts as dear as edits; give fewer than "
                f"rollout.steps={self.steps}, or set rollout.scouts to null"
            )
        return self

    @model_validator(mode="after")
    def _more_groups(self) -> RolloutConfig:
        if self.most_groups is not None and self.most_groups <= self.groups_per_step:
            raise ValueError(
                f"rollout.most_groups={self.most_groups} leaves none to draw in place of dropped groups; give more "
                f"than rollout.groups_per_step={self.groups_per_step}, or null"
            )
        return self


class OptimConfig(Section):
    """AdamW."""

    lr: float = Field(default=3e-4, gt=0)
    """Constant learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the two moments."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    micro_batch: int = Field(default=12, gt=0, le=100_000)
    """Noised edits of one group in one denoiser call; changes memory and speed, not the result."""


class AdapterConfig(Section):
    """The weights to train."""

    mode: AdapterMode = "lora"
    """Low-rank adapters, or the whole denoiser."""
    rank: int = Field(default=32, gt=0, le=16_384)
    """Rank of the adapters."""
    alpha: float = Field(default=64, gt=0, le=1e6)
    """Their scale is alpha / rank."""
    init: Path | None = None
    """A LoRA to start from, in the layout of diffusers, PEFT or ComfyUI; null for one without effect. `algorithm.kl`
    measures the distance to the editor without it."""
    init_scale: float = Field(default=1.0, gt=0, le=1e6)
    """Factor on what that LoRA adds; 2 for one whose file lost its alpha, as the released conversion writes it."""
    targets: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Names of the layers that get an adapter; null for the attention projections of the editor's family."""
    autocast: bool = False
    """Compute what a LoRA adds in the editor's number format; its weights, gradient and optimizer stay in float32."""


class MemoryConfig(Section):
    """How the editor fits on the machine; docs/memory.md says what each setting saves and costs."""

    gradient_checkpointing: bool = False
    """Keep only the inputs of the denoiser's blocks, and compute each block again in the backward pass."""
    quantize: Quantization | None = None
    """Hold the denoiser's frozen weights in 4 bits (bitsandbytes, a GPU) or 8 (torchao); null for editor.dtype."""
    offload: bool = False
    """Keep text encoders and VAE in main memory, and move them to the GPU layer by layer while they compute."""
    cache: Path | None = None
    """Folder for the encodings of prompts and sources, which are computed once; runs may share it."""
    vae_tiling: bool = False
    """Encode and decode pictures larger than a tile of the VAE in overlapping tiles, which changes them slightly."""
    attention: str | None = None
    """One of diffusers' attention backends, such as "flash" or "_native_cudnn"; null for its default."""
    compile: bool = False
    """Compile the denoiser's repeated blocks at their first call."""
    tf32: bool = False
    """Multiply float32 matrices with 10 bits of mantissa, those of a judge in the same process too; a GPU has it since
    the A100."""


class ParallelConfig(Section):
    """How the processes that torchrun starts share a run; docs/scale.md says what to set."""

    shard: int = Field(default=1, ge=1)
    """Processes over which the weights of the denoiser, and of large text encoders, are spread; 1 keeps them whole."""
    context: int = Field(default=1, ge=1)
    """Neighbouring processes that share the tokens of each denoiser call, for large pictures; 1: each works alone."""
    timeout: float = Field(default=1800.0, gt=0, le=1e6)
    """Seconds that processes wait for each other before the run ends and names those that are missing."""


def _algorithm(settings: Any) -> Any:
    """The settings as those of the algorithm that they name."""
    if not isinstance(settings, dict):
        return settings
    name = settings.get("name")
    kind = load_algorithm(name) if isinstance(name, str) and ":" in name else algorithm_of(settings)
    return kind.model_validate(as_meant(kind, settings))


class Config(Section):
    """One run."""

    editor: EditorConfig
    judge: JudgeConfig | None = None
    """The judge; null if `rewards` alone give the reward."""
    data: DataConfig
    rollout: RolloutConfig = RolloutConfig()
    algorithm: Annotated[SerializeAsAny[Algorithm], BeforeValidator(_algorithm)] = NFT()
    """The algorithm, by `name`, with its settings."""
    optim: OptimConfig = OptimConfig()
    adapter: AdapterConfig = AdapterConfig()
    memory: MemoryConfig = MemoryConfig()
    parallel: ParallelConfig = ParallelConfig()
    rewards: dict[str, RewardConfig] = Field(default_factory=dict)
    """More rewards by name; each is normalised on its own and mixed with the judge's, if there is one, by weight."""
    failures: FailureConfig = FailureConfig()
    watch: WatchConfig | None = None
    """A second judge that is told from, and not trained on; null for none."""
    preservation: KeptConfig | None = None
    """Measures what must not change, and may hold it; null for not at all."""
    evaluation: EvaluationConfig | None = None
    """Held-out items to measure the run on; null for none."""
    ema: Decay = 0.9
    """Decay rate of the averaged weights, which evaluation uses."""
    ema_warmup: bool = True
    """After step s (from 0) the rate is at most (1 + s) / (10 + s), so that the untrained start is soon forgotten;
    false: it is `ema` from the first step, and the start counts ema^n after n steps."""
    steps: int = Field(default=1000, gt=0, le=1_000_000_000)
    """Optimiser steps."""
    save_every: int = Field(default=10, gt=0)
    """Steps between two checkpoints, and between two pictures of samples."""
    keep: int = Field(default=3, gt=0)
    """Number of newest checkpoints to keep; the best one by held-out items stays too."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Where curves and pictures go besides the folder of the run: tensorboard, wandb, trackio (docs/runs.md)."""
    seed: Seed = 0
    """Seed of every random draw of the run."""
    out: Path = Path("runs/editr1")
    """Folder of the run; one that holds a checkpoint is continued."""

    @property
    def judges(self) -> dict[str, JudgeConfig]:
        """The settings of all judges of the run, by dotted key."""
        mixed = {
            f"rewards.{name}": own.judge for name, own in self.rewards.items() if isinstance(own, JudgeRewardConfig)
        }
        own = {"judge": self.judge, **mixed, "watch.judge": None if self.watch is None else self.watch.judge}
        return {name: judge for name, judge in own.items() if judge is not None}

    @property
    def optional_rewards(self) -> frozenset[str]:
        """Names of the rewards that may be missing."""
        return frozenset(name for name, reward in self.rewards.items() if reward.optional)

    @property
    def outside_rewards(self) -> frozenset[str]:
        """Names of the rewards that count outside of masks alone; none if an edit has one advantage."""
        divided = self.preservation is not None and self.preservation.advantages == "region"
        return frozenset(name for name, reward in self.rewards.items() if divided and reward.kind == "preservation")

    @model_validator(mode="after")
    def _some_reward(self) -> Config:
        if self.judge is None and not self.rewards and not self.data.is_stored:
            raise ValueError("judge is missing, and there are no rewards; give one of them")
        if self.judge is not None and "judge" in self.rewards:
            raise ValueError("rewards.judge: the name belongs to the judge itself; choose another one")
        products_of(self.judge, self.rewards)
        return self

    @model_validator(mode="after")
    def _fit_to_train(self, info: ValidationInfo) -> Config:
        """Refuse what trains on the wrong thing, but not in a run that is looked at: earlier versions trained so."""
        kept, fault = self.preservation, None
        if self.rewards and not self.data.is_stored:
            fault = fault_of_kinds(self.judge, self.rewards)
        if kept is not None:
            fault = fault or fault_by_region(kept, self.algorithm, self.judge, self.rewards)
        if fault and info.context != LOOKED_AT:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _edits_to_compare(self) -> Config:
        if self.data.is_stored:
            return self
        if self.rollout.group_size < 2:
            raise ValueError("rollout.group_size=1 leaves nothing to compare an edit with; give at least 2")
        if not self.algorithm.uses_rewards:
            raise ValueError(
                f"algorithm {self.algorithm.name!r} trains on every edit, whatever its reward; train it on stored "
                'edits (data.kind "pairs"), or use "rft", which trains on the better ones'
            )
        return self

    @model_validator(mode="after")
    def _stored_edits(self) -> Config:
        if not self.data.is_stored:
            return self
        if fault := self._fault_of_stored_edits():
            raise ValueError(f'data.kind "{self.data.kind}" trains on stored edits: {fault}')
        size, rollout = STORED[self.data.kind], self.rollout
        if size is None:
            return self
        if "group_size" in rollout.model_fields_set and rollout.group_size != size:
            raise ValueError(
                f'rollout.group_size={rollout.group_size}: an item of data.kind "{self.data.kind}" has {size}; leave '
                "rollout.group_size out"
            )
        object.__setattr__(self, "rollout", rollout.model_copy(update={"group_size": size}))
        return self

    def _fault_of_stored_edits(self) -> str | None:
        """What makes no sense where no edit is made and judged, in words; None if nothing."""
        judged = self.judge is not None or bool(self.rewards)
        given = {
            "watch": self.watch is not None,
            "preservation": self.preservation is not None,
            "rollout.save_groups": self.rollout.save_groups,
            "rollout.scouts": self.rollout.scouts is not None,
            "rollout.most_groups": self.rollout.most_groups is not None,
            "data.ban_solved": self.data.ban_solved,
        }
        if names := [name for name, is_given in given.items() if is_given]:
            return f"none is made or judged; leave {', '.join(names)} out"
        return fault_of_stored(self.data, self.evaluation, self.algorithm, judged)

    @model_validator(mode="after")
    def _items_that_can_be_solved(self) -> Config:
        ranking = self.judge is not None and self.judge.method == "ranking" and not self.rewards
        if self.data.ban_solved and ranking and self.algorithm.tau_mu >= 0.5:
            raise ValueError(
                "data.ban_solved never finds a solved item by judge.method=ranking, whose rewards have a mean near 0.5 "
                f"in every group, not above algorithm.tau_mu={self.algorithm.tau_mu:g}; set it to false, or judge by "
                "another method"
            )
        return self

    @model_validator(mode="after")
    def _trainable_weights(self) -> Config:
        if self.memory.quantize is not None and self.adapter.mode == "full":
            raise ValueError(
                f"memory.quantize={self.memory.quantize!r} holds weights that cannot be trained, but adapter.mode "
                '"full" trains them; set it to null, or adapter.mode to "lora"'
            )
        return self

    @model_validator(mode="after")
    def _weights_to_spread(self) -> Config:
        if self.memory.quantize is not None and self.parallel.shard > 1:
            raise ValueError(
                f"parallel.shard={self.parallel.shard} spreads weights of editor.dtype alone, not those of "
                f"memory.quantize={self.memory.quantize!r}; set one of them to its default (1, null)"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_a_lora(self) -> Config:
        if self.adapter.autocast and self.adapter.mode == "full":
            raise ValueError(
                'adapter.autocast is for a LoRA, but adapter.mode "full" trains the denoiser\'s own weights; set it to '
                'false, or adapter.mode to "lora"'
            )
        if self.adapter.init is None and self.adapter.init_scale != 1:
            raise ValueError(f"adapter.init_scale={self.adapter.init_scale:g} needs a LoRA: set adapter.init")
        if self.adapter.init is not None and self.adapter.mode == "full":
            raise ValueError(
                'adapter.init is a LoRA to train on, but adapter.mode "full" trains all weights; set adapter.mode to '
                '"lora", or merge it into the editor first (`editr1 export --merge`)'
            )
        return self

    @model_validator(mode="after")
    def _scouts_from_noise_alone(self) -> Config:
        if self.rollout.scouts is not None and self.algorithm.keeps_trajectory:
            raise ValueError(
                f"rollout.scouts={self.rollout.scouts} needs edits that follow from their first noise alone, but "
                f"algorithm {self.algorithm.name!r} draws noise in every step of its sampler; set scouts to null"
            )
        return self

    @model_validator(mode="after")
    def _whole_comparisons(self) -> Config:
        size, batch = self.rollout.group_size, self.optim.micro_batch
        if (unit := self.algorithm.unit(torch.linspace(-1, 1, size))) > batch:
            raise ValueError(
                f"optim.micro_batch={batch} is less than the {unit} edits of a group that algorithm "
                f"{self.algorithm.name!r} compares in one call; raise it to {unit}, with "
                "memory.gradient_checkpointing if memory is short, or lower rollout.group_size"
            )
        return self

    @model_validator(mode="after")
    def _levels_of_the_sampler(self) -> Config:
        if fault := self.algorithm.fault(self.rollout.steps):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _sampler_of_the_algorithm(self) -> Config:
        needed, rollout = self.algorithm.scheduler, self.rollout
        if needed in (None, rollout.scheduler):
            return self
        if "scheduler" in rollout.model_fields_set:
            raise ValueError(
                f"rollout.scheduler={rollout.scheduler!r}: algorithm {self.algorithm.name!r} needs {needed!r}; leave "
                "rollout.scheduler out"
            )
        object.__setattr__(self, "rollout", rollout.model_copy(update={"scheduler": needed}))
        return self
