"""The settings of judges and of other rewards."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from editr1.config.section import Section

MethodName = Literal["score_logit", "yes_no", "score_sampling", "cot_logit", "cot_sampling"]
Order = Literal["paper", "prefix"]
SourceSize = Literal["edit", "original"]
Scale = tuple[int, int]
HIGHEST = 1000
"""The highest score that a scale may have."""
Weight = Annotated[float, Field(gt=0, le=1e6)]
ClipKind = Literal["clip_image", "clip_direction"]

TOY_JUDGE = {"path": "toy:judge", "template": "brief", "order": "prefix", "batch_size": 48}
"""The toy judge: it knows one template and order."""


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
    criteria: dict[str, Weight] = Field(default_factory=lambda: {"overall": 1.0}, min_length=1)
    """Weight of each criterion of the template: overall, instruction, preservation, quality."""
    samples: int = Field(default=1, gt=0, le=1000)
    """Answers averaged, for the methods that sample them."""
    template: str = "full"
    """The words of the prompt: "full", "brief" (the toy judge's), or a YAML file of your own."""
    order: Order = "paper"
    """Source, edit, text (paper), or instruction, source, edit, question (prefix: servers cache what groups share)."""
    source_size: SourceSize = "edit"
    """Size at which the judge sees source and references: that of the edit, never enlarged and in their own shape
    (edit), or their own (original)."""
    batch_size: int = Field(default=16, gt=0, le=100_000)
    """Questions per forward pass, in this process."""
    in_flight: int = Field(default=32, gt=0, le=10_000)
    """Requests in flight per endpoint."""
    timeout: float = Field(default=60.0, gt=0, le=1e5)
    """Seconds per request."""
    tries: int = Field(default=8, gt=0, le=1000)
    """Attempts per question; if all fail, the edit gets no reward."""
    jpeg_quality: int | None = Field(default=None, ge=1, le=100)
    """Send images as JPEG of this quality; null for PNG, which loses nothing."""
    weight: Weight = 1.0
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

    @property
    def own_settings(self) -> str | None:
        """Settings beside method and words that change scores and differ from the defaults, as "samples=4"; or None."""
        own = {name: getattr(self, name) for name in ("scale", "criteria", "samples", "source_size", "jpeg_quality")}
        parts = [f"{name}={value}" for name, value in own.items() if value != getattr(JUDGE_DEFAULTS, name)]
        return ", ".join(parts) or None

    @model_validator(mode="after")
    def _one_place(self) -> JudgeConfig:
        if (self.path is None) == (not self.endpoints):
            raise ValueError("judge: give either path (a model in this process) or endpoints (servers)")
        if self.endpoints and not self.model:
            raise ValueError("judge.model must say under which name the endpoints know the model")
        if not 0 <= self.scale[0] < self.scale[1] <= HIGHEST:
            raise ValueError(f"judge.scale must rise from 0 or more to {HIGHEST} at most, not {list(self.scale)}")
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
    weight: Weight = 1.0
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
    """A Python function, or a judge of your own."""

    kind: Literal["function"] = "function"
    """Kind of reward."""
    path: str
    """The function, the judge or its class, as "pkg.module:name"."""


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
