"""What every part of the settings is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A part of the settings. It refuses unknown keys and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, settings: Any) -> Any:
        return as_meant(cls, settings)


def as_meant(kind: type[BaseModel], settings: Any) -> Any:
    """Settings of a class with "~" followed in their paths.

    Raises:
        ValueError: A truth value stands for a number; pydantic would read it as 0 or 1.
    """
    if not isinstance(settings, dict):
        return settings
    fields = {name: info for name, info in kind.model_fields.items() if name in settings}
    return {**settings, **{name: _value(name, settings[name], info.annotation) for name, info in fields.items()}}


def _value(name: str, value: Any, annotation: Any) -> Any:
    kinds = {*_kinds(annotation)}
    if bool not in kinds and kinds & {int, float}:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool):
                raise ValueError(f"{name} must be a number, not {each}; YAML reads yes, no, on and off as truth values")
    if isinstance(value, str) and value.startswith("~/") and (Path in kinds or name == "path"):
        return str(Path(value).expanduser())
    return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types in an annotation."""
    parts = get_args(annotation)
    yield from [annotation] if not parts else (kind for part in parts for kind in _kinds(part))


def is_toy(path: object) -> bool:
    """Whether a name is that of a shipped model."""
    return isinstance(path, str) and (path == "toy" or path.startswith("toy:"))
