"""What the files of a run must hold for its report: whatever is damaged is one line that names the place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from editr1.errors import UserError, first_problem

LARGEST = 1e30  # a chart shows no more


def shown(value: object) -> float | None:
    """A number that a chart can show; None for others, such as the NaN of a run that diverged."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        return None
    return float(value)


Value = Annotated[float | None, AfterValidator(shown)]
Drift = Annotated[float, AfterValidator(lambda value: math.nan if shown(value) is None else value)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Positive = Annotated[float, Field(ge=0, le=1e15)]


class _Record(BaseModel):
    """Further keys, such as those of other versions, stay as they are."""

    model_config = ConfigDict(extra="allow", strict=True)


class _DriftRecord(_Record):
    latent_norm: Drift
    brightness: Drift
    saturation: Drift
    sharpness: Drift
    source_distance: Drift


class StepRecord(_Record):
    """A line of metrics.jsonl."""

    step: Count
    groups_kept: Count
    dropped: dict[str, Count]
    unscored: Count
    reward_by_task: dict[str, Value]
    seconds: dict[str, Positive]
    reward_mean: Value = None
    reward_std_all: Value = None
    reward_std_within: Value = None
    grad_norm: Value = None
    update_norm: Value = None
    lora_norm: Value = None
    weight_norm: Value = None
    kl: Value = None
    ties: Value = None
    reasons: list[str] = []
    kept_by_task: dict[str, Count] = {}
    reward_parts: dict[str, Value] = {}
    parts_unscored: dict[str, Count] = {}
    parts_reasons: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    drift: _DriftRecord | None = None
    watched: dict[str, Value] | None = None
    outside: dict[str, Value] = {}
    outside_by_task: dict[str, Value] = {}


class _Figures(_Record):
    before: Number | None
    after: Number | None
    delta: Number | None
    ci95: Annotated[list[Number], Field(min_length=2, max_length=2)] | None
    ceiling: Number | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Figures:
        if len({value is None for value in (self.before, self.after, self.delta, self.ci95)}) > 1:
            raise ValueError("before, after, delta and ci95 must all be there, or all be null")
        return self


class _Measured(_Record):
    oracle: _Figures | None = None
    judge: _Figures
    psnr: _Figures | None = None
    ssim: _Figures | None = None
    features: _Figures | None = None


class _Task(_Measured):
    n: Count


class _Point(_Measured):
    step: Count


class ResultsRecord(_Measured):
    """results.json."""

    items: Count
    train_seconds: Positive
    by_task: dict[str, _Task]
    curve: list[_Point] = []
    after: str = Field(default="", min_length=1)
    guidance: Number | None = None
    judge_left_out: Count = 0

    @model_validator(mode="after")
    def _same_measures(self) -> ResultsRecord:
        parts: list[_Measured] = [*self.by_task.values(), *self.curve]
        if any((part.oracle is None) != (self.oracle is None) for part in parts):
            raise ValueError("oracle must be in all parts, or in none")
        return self


class _Words(_Record):
    title: str
    parts: dict[str, str]


class SessionRecord(_Record):
    """session.json."""

    command: str = ""
    hardware: str = ""
    float32_products: str = ""
    commit: dict[str, str] = {}
    versions: dict[str, str] = {}
    algorithm: _Words | None = None
    peak_memory_gib: dict[Literal["process", "gpu"], Positive] = {}


Pixels = Annotated[int, Field(ge=0, le=100_000)]


class _Strip(_Record):
    title: str
    rewards: list[Value]
    dropped: str | None
    places: Annotated[list[Annotated[list[Pixels], Field(min_length=2, max_length=2)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> _Strip:
        if len(self.places) != len(self.rewards) + 1:
            raise ValueError("places must be those of the source and of each edit with its reward")
        return self


class SamplesRecord(_Record):
    """samples/step_<step>.json, beside the picture."""

    step: Count
    side: Pixels
    groups: list[_Strip]


class SelfCheckRecord(_Record):
    """self_check.json."""

    replay_error: Number | None
    trained: Count
    layers: Count
    steps: Count
    modules: Count = 0
    silent: list[str] = []
    dead_ends: list[str] = []

    @model_validator(mode="after")
    def _whole(self) -> SelfCheckRecord:
        if self.steps and not {"modules", "silent", "dead_ends"} <= self.model_fields_set:
            raise ValueError("modules, silent and dead_ends must be there, since steps were seen")
        return self


Kind = TypeVar("Kind", bound=_Record)


def checked(kind: type[Kind], value: Any, where: Path | str) -> dict[str, Any]:
    """A record as it is, without what a chart cannot show; a UserError names the place of a fault."""
    try:
        record = kind.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: damaged: {first_problem(error)}; put a whole copy back, or move it away") from error
    return record.model_dump(exclude_unset=True)
