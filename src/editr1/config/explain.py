"""Every setting of a run with its value, its default and its meaning, which are those of `config/settings.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from editr1.config.settings import Config


@dataclass(frozen=True)
class Setting:
    """One setting of a run.

    Attributes:
        key: Its dotted name, such as "optim.lr".
        value: Its value, as JSON has it.
        default: Its default likewise; None too if it has none.
        required: Whether it has no default.
        meaning: Its documentation, in one line.
    """

    key: str
    value: Any
    default: Any
    required: bool
    meaning: str

    @property
    def changed(self) -> bool:
        """Whether the value is not the default."""
        return self.required or self.value != self.default


@dataclass(frozen=True)
class Part:
    """Settings that belong together: a section, or those of the run itself.

    Attributes:
        name: Name of the section; "run" for the run itself.
        about: What it is, in one line.
        settings: Its settings.
    """

    name: str
    about: str
    settings: list[Setting]


def explain(config: Config) -> Iterator[Part]:
    """All settings of a run, in the order of `config/settings.py`; those of the run itself come last."""
    own: list[Setting] = []
    for name, settings in groupby(_settings(config, ""), lambda setting: setting.key.partition(".")[0]):
        value, rows = getattr(config, name), [*settings]
        if isinstance(value, BaseModel):
            yield Part(name, _line(type(value).__doc__), rows)
        elif _named_sections(name, value):
            yield Part(name, meaning(Config.model_fields[name]), rows)
        else:
            own += rows
    yield Part("run", _line(Config.__doc__), own)


def meaning(field: FieldInfo) -> str:
    """The documentation of a setting, in one line; "" without one."""
    return _line(field.description)


def default_of(kind: type[BaseModel], name: str) -> Any:
    """The default of a setting as JSON has it; None without one."""
    field = kind.model_fields[name]
    if field.is_required():
        return None
    alone = kind.model_construct(**{name: field.get_default(call_default_factory=True)})
    return alone.model_dump(mode="json", include={name})[name]


def _settings(section: BaseModel, prefix: str) -> Iterator[Setting]:
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        below = {name: value} if isinstance(value, BaseModel) else _named_sections(name, value)
        for key, each in below.items():
            yield from _settings(each, f"{prefix}{key}.")
        if not below:
            yield Setting(
                prefix + name, values[name], default_of(type(section), name), field.is_required(), meaning(field)
            )


def _named_sections(name: str, value: Any) -> dict[str, BaseModel]:
    """The sections of a mapping such as `rewards`, each by its dotted name."""
    sections = value.items() if isinstance(value, dict) else ()
    return {f"{name}.{key}": each for key, each in sections if isinstance(each, BaseModel)}


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
