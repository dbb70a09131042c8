"""What every part of the settings is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from editr1.errors import printable

PLACES = ("path", "template", "lora")
"""Settings that name a folder or a file, or something else."""


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
    if isinstance(value, str) and (Path in kinds or name in PLACES):
        try:
            return place(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return value


def place(text: str) -> str:
    """A path with its "~" followed; a ValueError if no file can have it, as it is too long or a loop of links."""
    if text.startswith("~"):
        with suppress(RuntimeError):  # no user has this name: a shell leaves it too
            text = str(Path(text).expanduser())
    try:
        if "://" not in text:
            Path(text).stat()
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            words = f"{printable(text[-80:])!r}: there can be no such folder or file ({error.strerror})"
            raise ValueError(words) from error
    return text


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types in an annotation."""
    parts = get_args(annotation)
    yield from [annotation] if not parts else (kind for part in parts for kind in _kinds(part))


def is_toy(path: object) -> bool:
    """Whether a name is that of a shipped model."""
    return isinstance(path, str) and (path == "toy" or path.startswith("toy:"))
