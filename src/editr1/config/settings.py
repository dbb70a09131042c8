"""The settings of a run: typed, with the values of Edit-R1 (arXiv 2510.16888) as defaults; sources: docs/recipe.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from editr1.algorithms.base import Algorithm, parse_algorithm
from editr1.algorithms.base import SchedulerName as SchedulerName
from editr1.algorithms.nft import NFT

MethodName = Literal["score_logit", "yes_no", "score_sampling", "cot_logit", "cot_sampling"]
Order = Literal["paper", "prefix"]
SourceSize = Literal["edit", "original"]
Scale = tuple[int, int]
ClipKind = Literal["clip_image", "clip_direction"]
Split = Literal["sft", "rl", "heldout"]
Level = Literal["small", "full"]
AdapterMode = Literal["lora", "full"]
Quantization = Literal["nf4", "int8"]


class Section(BaseModel):
    """A part of the settings. It refuses unknown keys and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def is_toy(path: object) -> bool:
    """Whether a name is that of a shipped model."""
    return isinstance(path, str) and (path == "toy" or path.startswith("toy:"))


TOY_PIXELS = 64 * 64
"""The only area of a toy editor's pictures."""
TOY_JUDGE = {"path": "toy:judge", "template": "brief", "order": "prefix", "batch_size": 48}
"""The toy judge: it knows one template and order."""


class EditorConfig(Section):
    """The editor to train."""

    path: str
    """A diffusers pipeline: a folder, a hub name, or "toy:NAME" for a shipped one ("toy": toy:qwen-image-edit)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the frozen weights: bfloat16 on a GPU and float32 on a CPU (auto), or one of them."""
    device: str = "auto"
    """"auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"."""
    guidance: float | None = Field(default=None, ge=0)
    """Guidance scale; null for the default of the editor's family."""
    pixels: int | None = Field(default=512 * 512, gt=0)
    """Area of source and edit in pixels (64x64 by default for a toy); null for the pipeline's own."""
    text_tokens: int | None = Field(default=None, gt=0)
    """Length to which prompts are padded or cut (FLUX: 512 by default); null for the pipeline's own."""

    @model_validator(mode="before")
    @classmethod
    def _toy(cls, settings: Any) -> Any:
        """A toy's name and area."""
        if not isinstance(settings, dict) or not is_toy(settings.get("path")):
            return settings
        path = "toy:qwen-image-edit" if settings["path"] == "toy" else settings["path"]
        return {"pixels": TOY_PIXELS, **settings, "path": path}


class JudgeConfig(Section):
    """The multimodal model that gives the reward, in this process or behind OpenAI-compatible servers."""

    path: str | None = None
    """A transformers model in this process: a folder, a hub name or "toy" (the shipped one); null with endpoints."""
    endpoints: tuple[str, ...] = ()
    """Base URLs of OpenAI-compatible chat servers with logprobs, such as http://127.0.0.1:8000/v1."""
    model: str | None = None
    """The name under which the servers know the model."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the servers' key; no key is sent if it is not set."""
    method: Literal[MethodName, "ranking"] = "score_logit"
    """How a reward is read: expectation over the score tokens' logits, P(yes) against no, a written number, either
    after thoughts (cot), or the share of its group that an edit beats in pairs (ranking)."""
    scale: Scale = (0, 5)
    """Lowest and highest score that the model may give."""
    criteria: dict[str, float] = Field(default_factory=lambda: {"overall": 1.0}, min_length=1)
    """Weight of each criterion of the template: overall, instruction, preservation, quality."""
    samples: int = Field(default=1, gt=0)
    """Answers averaged, for the methods that sample them."""
    template: str = "full"
    """The words of the prompt: "full", "brief" (the toy judge's), or a YAML file of your own."""
    order: Order = "paper"
    """Source, edit, text (paper), or instruction, source, edit, question (prefix: servers cache what groups share)."""
    source_size: SourceSize = "edit"
    """Size at which the judge sees source and references: that of the edit, never enlarged and in their own shape
    (edit), or their own (original)."""
    batch_size: int = Field(default=16, gt=0)
    """Questions per forward pass, in this process."""
    in_flight: int = Field(default=32, gt=0)
    """Requests in flight per endpoint."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds per request."""
    tries: int = Field(default=8, gt=0)
    """Attempts per question; if all fail, the edit gets no reward."""
    jpeg_quality: int | None = Field(default=None, ge=1, le=100)
    """Send images as JPEG of this quality; null for PNG, which loses nothing."""
    weight: float = Field(default=1.0, gt=0)
    """Weight in the mix with `rewards`."""

    @model_validator(mode="before")
    @classmethod
    def _toy(cls, settings: Any) -> Any:
        """The toy judge's name, and its own words where no others are given; ranking has words of its own."""
        if not isinstance(settings, dict) or settings.get("path") not in ("toy", TOY_JUDGE["path"]):
            return settings
        scoring = _SCORING if settings.get("method") == "ranking" else ()
        own = {name: value for name, value in TOY_JUDGE.items() if name not in scoring}
        return {**own, **settings, "path": TOY_JUDGE["path"]}

    @property
    def name(self) -> str:
        """The model's name at its servers, or its folder."""
        return self.model or str(self.path)

    @model_validator(mode="after")
    def _one_place(self) -> JudgeConfig:
        if (self.path is None) == (not self.endpoints):
            raise ValueError("judge: give either path (a model in this process) or endpoints (servers)")
        if self.endpoints and not self.model:
            raise ValueError("judge.model must say under which name the endpoints know the model")
        if not 0 <= self.scale[0] < self.scale[1]:
            raise ValueError(f"judge.scale must rise from a number that is not negative, not {list(self.scale)}")
        return self

    @model_validator(mode="after")
    def _ranking_has_its_own_words(self) -> JudgeConfig:
        for name in _SCORING if self.method == "ranking" else ():
            if getattr(self, name) != getattr(JUDGE_DEFAULTS, name):
                raise ValueError(f"judge.{name}: method ranking compares edits in words of its own; leave {name} out")
        return self


_SCORING = ("scale", "criteria", "samples", "template", "order")
"""Settings of a judge that scores edits one by one."""
JUDGE_DEFAULTS = JudgeConfig.model_construct()


class _Reward(Section):
    weight: float = Field(default=1.0, gt=0)
    """Weight in the mix."""
    optional: bool = False
    """Whether edits without this reward are only counted; otherwise `failures` holds for it."""

    @model_validator(mode="before")
    @classmethod
    def _own_settings(cls, settings: Any) -> Any:
        """Refuse settings of other kinds; a null counts as left out, as earlier versions saved all of them."""
        if not isinstance(settings, dict):
            return settings
        own = {name: value for name, value in settings.items() if value is not None or name not in _OWNERS}
        for name, rule in _OWNERS.items():
            field = cls.model_fields.get(name)
            if (name in own and field is None) or (name not in own and field is not None and field.is_required()):
                raise ValueError(f"kind {own.get('kind')!r}: {rule}")
        return own


_OWNERS = {
    "path": "path must name a model, function or URL, and belongs only to kinds that have one",
    "lora": '`lora` belongs to kind "editscore", and only there',
    "judge": '`judge` belongs to kind "judge", and only there',
}


class JudgeRewardConfig(_Reward):
    """Another judge."""

    kind: Literal["judge"] = "judge"
    """Kind of reward."""
    judge: JudgeConfig
    """Settings of the other judge."""


class PreservationConfig(_Reward):
    """Pixels kept outside the edited region."""

    kind: Literal["preservation"] = "preservation"
    """Kind of reward."""
    optional: bool = True
    """As of any reward; true here, since an edit of the whole picture has no outside to keep."""


class OcrConfig(_Reward):
    """Quoted text that must be readable."""

    kind: Literal["ocr"] = "ocr"
    """Kind of reward."""
    optional: bool = True
    """As of any reward; true here, since many instructions quote no text."""


class ClipConfig(_Reward):
    """Likeness to the source, or direction toward the text."""

    kind: ClipKind
    """Kind of reward."""
    path: str
    """Folder of a CLIP or SigLIP model."""


class FunctionConfig(_Reward):
    """A Python function."""

    kind: Literal["function"] = "function"
    """Kind of reward."""
    path: str
    """The function, as "pkg.module:name"."""


class HttpConfig(_Reward):
    """An HTTP service."""

    kind: Literal["http"] = "http"
    """Kind of reward."""
    path: str
    """Its URL."""


class EditScoreConfig(_Reward):
    """EditScore's package."""

    kind: Literal["editscore"] = "editscore"
    """Kind of reward."""
    path: str
    """Folder of the base model."""
    lora: str | None = None
    """Folder of EditScore's LoRA."""


RewardConfig = Annotated[
    JudgeRewardConfig | PreservationConfig | OcrConfig | ClipConfig | FunctionConfig | HttpConfig | EditScoreConfig,
    Field(discriminator="kind"),
]
"""One more reward, mixed with the judge's."""
KINDS: dict[str, type[_Reward]] = {
    kind: section
    for section in get_args(get_args(RewardConfig)[0])
    for kind in get_args(section.model_fields["kind"].annotation)
}


class FailureConfig(Section):
    """When a judge that fails stops the run; holds for the reward as a whole and for each that is mixed into it."""

    share: float = Field(default=0.5, gt=0, le=1)
    """Share of a step's edits without reward above which the step fails."""
    steps: int = Field(default=3, gt=0)
    """Failing steps in a row that stop the run, with a checkpoint."""


class DataConfig(Section):
    """The items to edit."""

    kind: Literal["toy", "jsonl"] = "jsonl"
    """The built-in toy world, or a folder with a data.jsonl."""
    path: Path | None = None
    """The folder, for kind "jsonl"."""
    root: Path | None = None
    """A folder whose pictures `data.jsonl` may name by absolute paths or through links; null for `path` alone."""
    split: Split = "rl"
    """Part of the toy world."""
    level: Level = "small"
    """Richness of the toy world."""
    seed: int = Field(default=0, ge=0)
    """Seed of the toy items."""
    size: int = Field(default=512, gt=0)
    """Number of toy items."""
    ban_solved: bool = False
    """Never draw an item again once its edits are good and agree (tau_mu, tau_sigma), as in the released code."""

    @model_validator(mode="after")
    def _path_for_jsonl(self) -> DataConfig:
        if self.kind == "jsonl" and self.path is None:
            raise ValueError('data.path must name the folder when data.kind is "jsonl"')
        return self


class EvaluationConfig(Section):
    """Held-out items that are edited and judged before, during and after training; give either data or split."""

    data: Path | None = None
    """Folder of the held-out items, with a data.jsonl of its own; null with split."""
    split: float | None = Field(default=None, gt=0)
    """Held-out part of the run's own data, which training never draws: a share below 1, or a number of items."""
    every: int | None = Field(default=None, gt=0)
    """Steps between two evaluations; null for before and after training alone."""
    items: int | None = Field(default=None, gt=0)
    """Number of held-out items that are measured, a fixed choice of them; null for all."""
    edits: int = Field(default=2, gt=0)
    """Edits per item, each from noise of its own that is the same in every evaluation."""
    steps: int = Field(default=28, ge=2)
    """Denoiser calls per edit."""
    scheduler: SchedulerName = "euler"
    """Sampler, as in `rollout`."""

    @model_validator(mode="after")
    def _one_origin(self) -> EvaluationConfig:
        if (self.data is None) == (self.split is None):
            raise ValueError("evaluation: give either data (a folder of held-out items) or split (a part of the data)")
        if self.split is not None and self.split >= 1 and not self.split.is_integer():
            raise ValueError(f"evaluation.split={self.split:g}: give a share below 1, or a whole number of items")
        return self


class RolloutConfig(Section):
    """How edits for training are sampled."""

    group_size: int = Field(default=12, ge=2)
    """G: edits of one item, compared with each other."""
    groups_per_step: int = Field(default=24, gt=0)
    """Items per step."""
    steps: int = Field(default=6, ge=2)
    """Denoiser calls per edit."""
    scheduler: SchedulerName = "dpm2"
    """Sampler: DPM-Solver++(2M) for flow matching, or Euler."""


class OptimConfig(Section):
    """AdamW."""

    lr: float = Field(default=3e-4, gt=0)
    """Constant learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    micro_batch: int = Field(default=12, gt=0)
    """Noised edits of one group in one denoiser call; changes memory and speed, not the result."""


class AdapterConfig(Section):
    """The weights to train."""

    mode: AdapterMode = "lora"
    """Low-rank adapters, or the whole denoiser."""
    rank: int = Field(default=32, gt=0)
    """Rank of the adapters."""
    alpha: float = Field(default=64, gt=0)
    """Their scale is alpha / rank."""
    init: Path | None = None
    """A LoRA to start from, in the layout of diffusers, PEFT or ComfyUI; null for one without effect. `algorithm.kl`
    measures the distance to the editor without it."""
    targets: tuple[str, ...] | None = None
    """Names of the layers that get an adapter; null for the attention projections of the editor's family."""


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


class Config(Section):
    """One run."""

    editor: EditorConfig
    judge: JudgeConfig | None = None
    """The judge; null if `rewards` alone give the reward."""
    data: DataConfig
    rollout: RolloutConfig = RolloutConfig()
    algorithm: Annotated[SerializeAsAny[Algorithm], BeforeValidator(parse_algorithm)] = NFT()
    """The algorithm, by `name`, with its settings."""
    optim: OptimConfig = OptimConfig()
    adapter: AdapterConfig = AdapterConfig()
    memory: MemoryConfig = MemoryConfig()
    rewards: dict[str, RewardConfig] = Field(default_factory=dict)
    """More rewards by name; each is normalised on its own and mixed with the judge's, if there is one, by weight."""
    failures: FailureConfig = FailureConfig()
    evaluation: EvaluationConfig | None = None
    """Held-out items to measure the run on; null for none."""
    ema: float = Field(default=0.9, ge=0, lt=1)
    """Decay rate of the averaged weights, which evaluation uses; after step s (from 0) at most (1 + s) / (10 + s)."""
    steps: int = Field(default=1000, gt=0)
    """Optimiser steps."""
    save_every: int = Field(default=10, gt=0)
    """Steps between two checkpoints, and between two pictures of samples."""
    keep: int = Field(default=3, gt=0)
    """Number of checkpoints to keep."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random draw of the run."""
    out: Path = Path("runs/editr1")
    """Folder of the run; one that holds a checkpoint is continued."""

    @property
    def optional_rewards(self) -> frozenset[str]:
        """Names of the rewards that may be missing."""
        return frozenset(name for name, reward in self.rewards.items() if reward.optional)

    @model_validator(mode="after")
    def _some_reward(self) -> Config:
        if self.judge is None and not self.rewards:
            raise ValueError("judge is missing, and there are no rewards; give one of them")
        if self.judge is not None and "judge" in self.rewards:
            raise ValueError("rewards.judge: the name belongs to the judge itself; choose another one")
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
    def _init_of_a_lora(self) -> Config:
        if self.adapter.init is not None and self.adapter.mode == "full":
            raise ValueError(
                'adapter.init is a LoRA to train on, but adapter.mode "full" trains all weights; set adapter.mode to '
                '"lora", or merge it into the editor first (`editr1 export --merge`)'
            )
        return self

    @model_validator(mode="after")
    def _enough_noise_levels(self) -> Config:
        levels = self.algorithm.levels_per_edit(self.rollout.steps)
        if self.algorithm.timesteps == "sampler" and levels > self.rollout.steps:
            raise ValueError(
                f"algorithm.timesteps_per_image={levels} is more than the {self.rollout.steps} noise "
                'levels of rollout.steps; lower it or set algorithm.timesteps to "uniform"'
            )
        return self
