"""The settings of a run: typed, with the paper's values as defaults (Edit-R1, arXiv 2510.16888, table 5), checked once.

A preset is a YAML file that states only what differs. `load_config("toy", ["steps=10"])` reads a file, or a shipped
preset by its name, and lays overrides over it. Whatever is wrong comes out as one `UserError` that says where.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator
from pydantic_core import ErrorDetails

from editr1.algorithms.base import Algorithm, find_algorithms, parse_algorithm
from editr1.algorithms.base import SchedulerName as SchedulerName
from editr1.algorithms.nft import NFT
from editr1.errors import UserError

MethodName = Literal["score_logit", "yes_no", "score_sampling", "cot_logit", "cot_sampling"]
Order = Literal["paper", "prefix"]
Scale = tuple[int, int]
ClipKind = Literal["clip_image", "clip_direction"]
Split = Literal["sft", "rl", "heldout"]
Level = Literal["small", "full"]
AdapterMode = Literal["lora", "full"]
Quantization = Literal["nf4", "int8"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class EditorConfig(_Section):
    """The editor to be trained."""

    path: str
    """A diffusers pipeline: folder, hub name, or "toy:NAME" for a shipped one."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Number format of the frozen weights."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N"."""
    guidance: float | None = Field(default=None, ge=0)
    """Guidance scale; null for the default of the editor's family."""
    pixels: int | None = Field(default=512 * 512, gt=0)
    """Area of source and edit in pixels; null for the pipeline's own."""
    text_tokens: int | None = Field(default=None, gt=0)
    """Length that prompts are padded or cut to (FLUX: 512 by default); null for the pipeline's own."""


class JudgeConfig(_Section):
    """The multimodal model that gives the reward, in this process or behind OpenAI-compatible servers."""

    path: str | None = None
    """A transformers model in this process: a folder, or "toy:NAME" for a shipped one; null with endpoints."""
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


class _Reward(_Section):
    weight: float = Field(default=1.0, gt=0)
    """Weight in the mix."""

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


class OcrConfig(_Reward):
    """Quoted text that must be readable."""

    kind: Literal["ocr"] = "ocr"
    """Kind of reward."""


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


class FailureConfig(_Section):
    """When a judge that fails stops the run."""

    share: float = Field(default=0.5, gt=0, le=1)
    """Share of a step's edits without reward above which the step fails."""
    steps: int = Field(default=3, gt=0)
    """Failing steps in a row that stop the run, with a checkpoint."""


class DataConfig(_Section):
    """What is edited."""

    kind: Literal["toy", "jsonl"] = "jsonl"
    """The embedded toy world, or a folder with a data.jsonl."""
    path: Path | None = None
    """The folder, for kind "jsonl"."""
    split: Split = "rl"
    """Which part of the toy world."""
    level: Level = "small"
    """How rich the toy world is."""
    seed: int = Field(default=0, ge=0)
    """Which toy items are made."""
    size: int = Field(default=512, gt=0)
    """How many toy items are made."""

    @model_validator(mode="after")
    def _path_for_jsonl(self) -> DataConfig:
        if self.kind == "jsonl" and self.path is None:
            raise ValueError('data.path must name the folder when data.kind is "jsonl"')
        return self


class RolloutConfig(_Section):
    """How edits are made for training."""

    group_size: int = Field(default=12, ge=2)
    """G: edits of one item, compared with each other."""
    groups_per_step: int = Field(default=24, gt=0)
    """Items a step."""
    steps: int = Field(default=6, ge=2)
    """Denoiser calls an edit."""
    scheduler: SchedulerName = "dpm2"
    """DPM-Solver++(2M) for flow matching, or Euler."""


class OptimConfig(_Section):
    """AdamW."""

    lr: float = Field(default=3e-4, gt=0)
    """Learning rate, constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    micro_batch: int = Field(default=12, gt=0)
    """Noised edits of one group in one denoiser call; changes memory and speed, not the result."""


class AdapterConfig(_Section):
    """What is trained."""

    mode: AdapterMode = "lora"
    """Low-rank adapters, or the whole denoiser."""
    rank: int = Field(default=32, gt=0)
    """Rank of the adapters."""
    alpha: float = Field(default=64, gt=0)
    """Their scale is alpha / rank."""
    targets: tuple[str, ...] | None = None
    """Names of the layers that get one; null for the attention projections of the editor's family."""


class MemoryConfig(_Section):
    """How the editor fits on the machine; docs/memory.md says what each saves and costs."""

    gradient_checkpointing: bool = False
    """Keep the inputs of the denoiser's blocks alone, and compute each block again in the backward pass."""
    quantize: Quantization | None = None
    """Hold the denoiser's frozen weights in 4 bits (bitsandbytes, a GPU) or 8 (torchao); null as editor.dtype."""
    offload: bool = False
    """Text encoders and VAE live in main memory, and come to the GPU layer by layer while they compute."""
    cache: Path | None = None
    """Folder for the encodings of prompts and sources, computed once; runs may share it."""
    vae_tiling: bool = False
    """Encode and decode pictures larger than a tile of the VAE in overlapping tiles; changes them slightly."""
    attention: str | None = None
    """One of diffusers' attention backends, such as "flash" or "_native_cudnn"; null for its default."""
    compile: bool = False
    """Compile the denoiser's repeated blocks when they are first called."""


class Config(_Section):
    """One run."""

    editor: EditorConfig
    judge: JudgeConfig
    data: DataConfig
    rollout: RolloutConfig = RolloutConfig()
    algorithm: Annotated[SerializeAsAny[Algorithm], BeforeValidator(parse_algorithm)] = NFT()
    """The algorithm, by `name`, and its settings."""
    optim: OptimConfig = OptimConfig()
    adapter: AdapterConfig = AdapterConfig()
    memory: MemoryConfig = MemoryConfig()
    rewards: dict[str, RewardConfig] = Field(default_factory=dict)
    """More rewards by name, each normalised on its own and mixed with the judge's by weight."""
    failures: FailureConfig = FailureConfig()
    ema: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the averaged weights that evaluation uses."""
    steps: int = Field(default=1000, gt=0)
    """Optimiser steps."""
    save_every: int = Field(default=10, gt=0)
    """Steps between two checkpoints, and two pictures of samples."""
    keep: int = Field(default=3, gt=0)
    """How many checkpoints stay."""
    seed: int = Field(default=0, ge=0)
    """Every random draw of the run follows from it."""
    out: Path = Path("runs/editr1")
    """Folder of the run; one that holds a checkpoint is continued."""

    @model_validator(mode="after")
    def _trainable_weights(self) -> Config:
        if self.memory.quantize is not None and self.adapter.mode == "full":
            raise ValueError(
                f"memory.quantize={self.memory.quantize!r} holds weights that cannot be trained, which adapter.mode "
                '"full" does; set it to null, or adapter.mode to "lora"'
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


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, or a shipped preset by name, with overrides such as "optim.lr=1e-3" laid over it.

    Raises:
        UserError: no such file, not YAML, or a wrong key or value, named with its origin and the nearest right one.
    """
    text, name = _read(path)
    tree = _mapping(_yaml(text, name), name)
    origins: dict[str, str] = {}
    for override in overrides:
        key, value = parse_override(override)
        _lay(tree, key, value, f"override {override}")
        origins[key] = f"override {override}"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        settings = tree.get("algorithm")
        algorithm = settings.get("name", "nft") if isinstance(settings, dict) else None
        raise UserError("; ".join(_explain(detail, origins, name, algorithm) for detail in error.errors())) from error


def dump_config(config: Config) -> str:
    """All settings as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def parse_override(text: str) -> tuple[str, Any]:
    """Split "a.b=value". The value stays text unless YAML reads it as null, a list, a mapping or a quoted string.

    Raises:
        UserError: there is no "=", no key before it, or the value is broken YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"override {text!r} must look like section.key=value, e.g. optim.lr=1e-3")
    if value.strip()[:1] in ("[", "{", '"', "'"):
        return key, _yaml(value, f"override {text}")
    return key, None if value.strip() in ("null", "~") else value


def presets() -> list[str]:
    """Names of the shipped presets."""
    return sorted(file.name.removesuffix(".yaml") for file in _shipped().iterdir() if file.name.endswith(".yaml"))


def known_keys(section: type[BaseModel] = Config, prefix: str = "", algorithm: str | None = None) -> Iterator[str]:
    """Every dotted key of a config, sections included, with the settings of one algorithm or of all."""
    for name, info in section.model_fields.items():
        yield prefix + name
        for below in _sections(info.annotation, algorithm):
            yield from known_keys(below, f"{prefix}{name}.", algorithm)


def _sections(annotation: Any, algorithm: str | None) -> Sequence[type[BaseModel]]:
    """The sections that a setting of this type may hold."""
    if not isinstance(annotation, type):
        return []
    if issubclass(annotation, Algorithm):
        algorithms = find_algorithms()
        return [algorithms[algorithm]] if algorithm in algorithms else [*algorithms.values()]
    return [annotation] if issubclass(annotation, _Section) else []


def _shipped() -> Any:
    return resources.files("editr1") / "presets"


def _read(path: str | Path) -> tuple[str, str]:
    preset = _shipped() / f"{path}.yaml"
    if not Path(path).is_file() and str(path) in presets():
        return preset.read_text(encoding="utf-8"), f"preset {path}"
    try:
        return Path(path).read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config {path}: {error}; shipped presets: {', '.join(presets())}") from error


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{where}: expected keys and values such as `steps: 100`")
    return value


def _lay(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            raise UserError(f"{where}: {section} is a value, it holds no keys")
        tree = below
    tree[last] = value


def _explain(detail: ErrorDetails, origins: dict[str, str], name: str, algorithm: str | None) -> str:
    key, keys = _place(detail["loc"], algorithm)
    origin = next((where for written, where in origins.items() if _same_branch(key, written)), name)
    if detail["type"] == "extra_forbidden":
        return f"{origin}: unknown key {key}; did you mean {nearest_key(key, keys)}?"
    if detail["type"] == "missing":
        return f"{origin}: {key} is missing"
    if detail["type"] == "union_tag_not_found":
        return f"{origin}: {key}.kind is missing"
    if detail["type"] == "union_tag_invalid":
        return f"{origin}: {key}.kind: Input should be {detail['ctx']['expected_tags']}, not {detail['ctx']['tag']!r}"
    problem = detail["msg"].removeprefix("Value error, ")
    return (
        f"{origin}: {key}: {problem}, not {detail['input']!r}"
        if key and detail["type"] != "value_error"
        else f"{origin}: {problem}"
    )


def _place(loc: tuple[int | str, ...], algorithm: str | None) -> tuple[str, Iterable[str]]:
    """The dotted key of a problem, and the known keys there; pydantic's place of a reward's key holds its kind too."""
    if loc[:1] != ("rewards",) or len(loc) < 3:
        return ".".join(map(str, loc)), known_keys(algorithm=algorithm)
    reward = f"rewards.{loc[1]}"
    return ".".join([reward, *map(str, loc[3:])]), known_keys(KINDS[str(loc[2])], f"{reward}.")


def _same_branch(one: str, other: str) -> bool:
    """Whether one dotted key is, or lies under, the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def nearest_key(key: str, keys: Iterable[str]) -> str:
    """Of `keys`, the one most like `key`, as a whole and in its last part."""

    def likeness(other: str) -> float:
        pairs = ((key, other), (key.rpartition(".")[2], other.rpartition(".")[2]))
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return max(keys, key=likeness)
