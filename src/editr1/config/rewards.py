"""The settings of judges and of other rewards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from editr1.config.formula import Formula, parse_formula
from editr1.config.section import Section

MethodName = Literal["score_logit", "yes_no", "score_sampling", "cot_logit", "cot_sampling"]
Order = Literal["paper", "prefix"]
SourceSize = Literal["edit", "original"]
Scale = tuple[int, int]
HIGHEST = 1000
"""The highest score that a scale may have."""
Weight = Annotated[float, Field(gt=0, le=1e6)]
Counted = Annotated[
    Annotated[dict[str, Weight], Tag("weights")] | Annotated[str, Tag("formula")],
    Discriminator(lambda value: "formula" if isinstance(value, str) else "weights"),
]
"""What counts of an edit: the weighted mean of criteria, or a formula of them."""
Share = Annotated[float, Field(ge=0, le=1)]
MixWeight = Annotated[float, Field(ge=0, le=1e6)]
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
    method: Literal[MethodName, "template", "ranking"] = "score_logit"
    """How a reward is read: expectation over the score tokens' logits, P(yes) against no, a written number, either
    after thoughts (cot), as a template of your own says (template), or the share of its group that an edit beats in
    pairs (ranking)."""
    scale: Scale = (0, 5)
    """Lowest and highest score that the model may give."""
    criteria: dict[str, Weight] = Field(default_factory=lambda: {"overall": 1.0}, min_length=1)
    """Weight of each criterion of the template: overall, instruction, preservation, quality, execution, consistency."""
    criteria_by_task: dict[str, Counted] = Field(default_factory=dict)
    """For the items of a task, in place of criteria or formula: criteria and weights ({style: {execution: 1}}), or a
    formula ({text: execution * (0.2 + 0.8 * consistency)})."""
    formula: str | None = None
    """Of criteria, in place of their weighted mean: "execution * (0.6 + 0.4 * consistency)"; null for the mean."""
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
    weight: MixWeight = 1.0
    """Weight in the mix with `rewards`."""
    weight_by_task: dict[str, MixWeight] = Field(default_factory=dict)
    """That weight for the items of a task, where it differs; 0 leaves the judge out there."""

    @model_validator(mode="before")
    @classmethod
    def _toy(cls, settings: Any) -> Any:
        """The toy judge's name, and its own words where no others are given; ranking has words of its own."""
        if not isinstance(settings, dict) or settings.get("path") not in ("toy", TOY_JUDGE["path"]):
            return settings
        others = _SENSELESS.get(str(settings.get("method")), ())
        own = {name: value for name, value in TOY_JUDGE.items() if name not in others}
        return {**own, **settings, "path": TOY_JUDGE["path"]}

    @property
    def name(self) -> str:
        """The model's name at its servers, or its folder."""
        return self.model or str(self.path)

    @property
    def named(self) -> Iterator[tuple[str, str]]:
        """The criteria that an edit may be asked about, each after a setting that names it; some are there twice."""
        usual = ("criteria", self.criteria) if self.formula is None else ("formula", self.formula)
        for place, counted in (usual, *(("criteria_by_task", each) for each in self.criteria_by_task.values())):
            names = parse_formula(counted).names if isinstance(counted, str) else counted
            yield from ((place, name) for name in names)

    @property
    def asked(self) -> tuple[str, ...]:
        """The criteria that an edit may be asked about."""
        return tuple(dict.fromkeys(name for _, name in self.named))

    @property
    def own_settings(self) -> str | None:
        """Settings beside method and words that change scores and differ from the defaults, as "samples=4"; or None."""
        names = ("scale", "criteria", "criteria_by_task", "formula", "samples", "source_size", "jpeg_quality")
        own = {name: getattr(self, name) for name in names}
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
    def _words_of_its_own(self) -> JudgeConfig:
        for name in _SENSELESS.get(self.method, ()):
            if getattr(self, name) != getattr(JUDGE_DEFAULTS, name):
                raise ValueError(f"judge.{name}: method {self.method} {_HAS[self.method]}; leave {name} out")
        return self

    @model_validator(mode="after")
    def _one_way_to_weigh(self) -> JudgeConfig:
        _check_weight(self.weight, self.weight_by_task, "judge")
        if any(not criteria for criteria in self.criteria_by_task.values()):
            raise ValueError("judge.criteria_by_task: a task has no criteria; name one, or leave the task out")
        formulas = {f"criteria_by_task.{task}": each for task, each in self.criteria_by_task.items()}
        for place, formula in {"formula": self.formula, **formulas}.items():
            if isinstance(formula, str):
                _formula_of(f"judge.{place}", formula)
        if self.formula is not None and self.criteria != JUDGE_DEFAULTS.criteria:
            raise ValueError("judge.formula names its criteria itself; leave judge.criteria out")
        return self


def _formula_of(place: str, text: str) -> Formula:
    try:
        return parse_formula(text)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _check_weight(weight: float, by_task: Mapping[str, float], place: str) -> None:
    if not any((weight, *by_task.values())):
        raise ValueError(f"{place}: weight=0 counts for no task; leave it out, or name tasks in weight_by_task")


_SENSELESS = {
    "ranking": ("scale", "criteria", "criteria_by_task", "formula", "samples", "template", "order"),
    "template": ("scale", "order"),
}
"""Settings of a judge that a method has no use for."""
_HAS = {
    "ranking": "compares edits in words of its own",
    "template": "has words, order and range from judge.template",
}
JUDGE_DEFAULTS = JudgeConfig.model_construct()


class _Reward(Section):
    weight: MixWeight = 1.0
    """Weight in the mix."""
    weight_by_task: dict[str, MixWeight] = Field(default_factory=dict)
    """That weight for the items of a task, where it differs; 0 leaves the reward out there."""
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

    @model_validator(mode="after")
    def _counts_somewhere(self) -> _Reward:
        _check_weight(self.weight, self.weight_by_task, f"kind {getattr(self, 'kind', '')!r}")
        return self


_OWNERS = {
    "path": "path must name a model, function or URL, and belongs only to kinds that have one",
    "lora": '`lora` belongs to kind "editscore", and only there',
    "judge": '`judge` belongs to kind "judge", and only there',
    "formula": '`formula` belongs to kind "product", and only there',
}


class JudgeRewardConfig(_Reward):
    """Another judge."""

    kind: Literal["judge"] = "judge"
    """Kind of reward."""
    judge: JudgeConfig
    """Settings of the other judge."""


MaskSource = Literal["data", "group", "either"]
WHOLE_TASKS = ("style", "background")


class PreservationConfig(_Reward):
    """Pixels kept outside of what an edit may change."""

    kind: Literal["preservation"] = "preservation"
    """Kind of reward."""
    optional: bool = True
    """As of any reward; true here, since an edit of the whole picture has no outside to keep."""
    masks: MaskSource | Literal["edit"] = "either"
    """Masks of the items (data), where the edits of a group agree to differ from their source (group), this for items
    without one (either); or where each edit differs, which overlooks whatever differs much (edit)."""
    whole_tasks: tuple[str, ...] = WHOLE_TASKS
    """Task types whose edits are of the whole picture: no mask is derived for them."""


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


class ProductConfig(_Reward):
    """A formula of the other rewards, as a gate; these count in it alone, and are reported by name."""

    kind: Literal["product"] = "product"
    """Kind of reward."""
    formula: str
    """Of names of rewards, "judge" among them, and numbers, with +, *, ** (a number above 0) and parentheses:
    "judge * (0.6 + 0.4 * kept)"."""
    missing: dict[str, Share] = Field(default_factory=dict)
    """What stands for a reward of the formula that does not apply to an item, as `kept` without a mask: {kept: 1}. With
    none, the product is missing there. One that is missing for another reason, such as a failure, is never replaced."""


MeasuredConfig = (
    JudgeRewardConfig | PreservationConfig | OcrConfig | ClipConfig | FunctionConfig | HttpConfig | EditScoreConfig
)
"""A reward that looks at the edit."""
RewardConfig = Annotated[MeasuredConfig | ProductConfig, Field(discriminator="kind")]
"""One more reward, mixed with the judge's."""
KINDS: dict[str, type[_Reward]] = {
    kind: section
    for section in get_args(get_args(RewardConfig)[0])
    for kind in get_args(section.model_fields["kind"].annotation)
}


UNTOUCHED = ("preservation", "clip_image")
"""Kinds of rewards that an untouched source wins."""


def fault_of_kinds(judge: JudgeConfig | None, rewards: Mapping[str, RewardConfig]) -> str | None:
    """What is wrong if all rewards of a run are for leaving the source as it is, in words; None otherwise."""
    if judge is not None or any(own.kind not in (*UNTOUCHED, "product") for own in rewards.values()):
        return None
    names = ", ".join(f"rewards.{name}" for name in rewards)
    return f"{names}: an edit that changes nothing gets the most; give a judge or a reward that wants the edit done too"


def mixed_of(judge: JudgeConfig | None, rewards: Mapping[str, RewardConfig]) -> dict[str, JudgeConfig | RewardConfig]:
    """The settings of all rewards of a run, by name; that of its judge is "judge"."""
    return {**({"judge": judge} if judge else {}), **rewards}


def products_of(judge: JudgeConfig | None, rewards: Mapping[str, RewardConfig]) -> dict[str, Formula]:
    """The formulas among the rewards of a run, by name.

    Raises:
        ValueError: One is none, or names what is no reward of the run, a product, or a reward with a weight of its own;
            or its `missing` names what is not in it.
    """
    mixed = mixed_of(judge, rewards)
    products = {name: own for name, own in rewards.items() if isinstance(own, ProductConfig)}
    known, formulas = [name for name in mixed if name not in products], dict[str, Formula]()
    for name, product in products.items():
        formulas[name] = _formula_of(f"rewards.{name}.formula", product.formula)
        if strange := [each for each in product.missing if each not in formulas[name].names]:
            there = ", ".join(formulas[name].names)
            raise ValueError(f"rewards.{name}.missing: {strange[0]!r} is not in its formula; there are {there}")
        for factor in formulas[name].names:
            if factor in products:
                raise ValueError(f"rewards.{name}.formula: {factor!r} is a formula itself; write it out")
            if factor not in mixed:
                there = ", ".join(known) or "none"
                raise ValueError(f"rewards.{name}.formula: there is no reward {factor!r}; there are {there}")
            if (mixed[factor].weight, mixed[factor].weight_by_task) != (1.0, {}):
                place = factor if factor == "judge" else f"rewards.{factor}"
                raise ValueError(f"{place}: it counts in rewards.{name} alone; leave weight and weight_by_task out")
    return formulas
