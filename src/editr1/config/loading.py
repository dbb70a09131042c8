"""From a YAML file and overrides to checked settings, and back.

A preset is a YAML file that states only what differs. `load_config("toy", ["steps=10"])` reads a file, or a shipped
preset by its name, and applies overrides to it. "+preserve" among them stands for the settings of that addition.
Whatever is wrong is one `UserError` that says where.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from editr1.algorithms.base import Algorithm, find_algorithms
from editr1.config.own_code import own_algorithm
from editr1.config.presets import additions, presets, read_preset
from editr1.config.rewards import KINDS
from editr1.config.section import Section
from editr1.config.settings import LOOKED_AT, Config
from editr1.config.yaml_text import LONGEST, parse_yaml
from editr1.errors import UserError, text_of

ELSEWHERE = {
    "optim.lr": "optim.learning_rate",
    "adapter.rank": "adapter.lora_rank",
    "editor.pixels": "editor.resolution",
    "rollout.group_size": "rollout.num_generations",
    "out": "output_dir",
}
"""Names that other trainers have for a setting."""


BY_TASK = "criteria_by_task"


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, or a shipped preset by name, and apply overrides such as "optim.lr=1e-3" or "+preserve" to it.

    Raises:
        UserError: There is no such file, it is not YAML, or a key or value is wrong; the message names its origin.
    """
    tree, name = _read(path)
    origins: dict[str, str] = {}
    for override in overrides:
        for key, value in _settings_of(override):
            if override.startswith("+"):
                _refuse_other(tree, key, value, override, _origin(key, origins, name))
            origins.pop(key, None)  # so that the last one comes last
            origins[key] = f"override {override}"
            _set(tree, key, value, origins[key])
    return _checked(tree, origins, name)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run that is looked at, as JSON. A user's own algorithm is code: it is not imported, unchecked.

    Some settings that earlier versions trained with are refused now, but not here.

    Raises:
        UserError: As of `load_config`.
    """
    tree, name = _read(path)
    if own_algorithm(tree) is None:
        return _checked(tree, {}, name, LOOKED_AT).model_dump(mode="json")
    settings = _checked({**tree, "algorithm": {}}, {}, name, LOOKED_AT).model_dump(mode="json")
    return {**settings, "algorithm": tree["algorithm"]}


def dump_config(config: Config) -> str:
    """All settings as YAML; `load_config` reads an equal object from it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _settings_of(override: str) -> Iterator[tuple[str, Any]]:
    """The keys and values that an override sets: one, or those of an addition."""
    if not override.startswith("+"):
        yield parse_override(override)
        return
    if override not in additions():
        raise UserError(f"there is no {override!r}; shipped additions: {', '.join(additions())}")
    for section, settings in parse_yaml(read_preset(override), override).items():
        yield from ((f"{section}.{key}", value) for key, value in settings.items())


def _refuse_other(tree: dict[str, Any], key: str, value: Any, addition: str, origin: str) -> None:
    """Refuse an addition in whose place there is another value already: neither may be lost silently."""
    section, _, last = key.partition(".")
    there = tree.get(section)
    if isinstance(there, dict) and there.get(last) not in (None, value):
        raise UserError(
            f"{addition} sets {key} to {value!r}, but {origin} has {there[last]!r}; leave one of them out (what comes "
            f"after {addition} may change it)"
        )


def parse_override(text: str) -> tuple[str, Any]:
    """Split "a.b=value". The value stays text unless YAML reads it as null, a list, a mapping or a quoted string.

    Raises:
        UserError: There is no "=", no key before it, or the value is broken YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"override {text!r} must look like section.key=value, e.g. optim.lr=1e-3")
    if value.strip()[:1] in ("[", "{", '"', "'"):
        return key, parse_yaml(value, f"override {text}")
    return key, None if value.strip() in ("null", "~") else value


def known_keys(section: type[BaseModel] = Config, prefix: str = "", algorithm: str | None = None) -> Iterator[str]:
    """Every dotted key of a config, sections included, with the settings of one algorithm or of all."""
    for name, info in section.model_fields.items():
        yield prefix + name
        for below in _sections(info.annotation, algorithm):
            yield from known_keys(below, f"{prefix}{name}.", algorithm)


def _sections(annotation: Any, algorithm: str | None) -> Sequence[type[BaseModel]]:
    """The sections that a setting of this type may hold."""
    if isinstance(annotation, UnionType):  # such as a section or null
        return [section for one in get_args(annotation) for section in _sections(one, algorithm)]
    if not isinstance(annotation, type):
        return []
    if issubclass(annotation, Algorithm):
        algorithms = find_algorithms()
        return [algorithms[algorithm]] if algorithm in algorithms else [*algorithms.values()]
    return [annotation] if issubclass(annotation, Section) else []


def _read(path: str | Path) -> tuple[dict[str, Any], str]:
    """The settings in a file, or in a preset, and what messages call it."""
    text, name = _text(path)
    return _mapping(parse_yaml(text, name), name), name


def _text(path: str | Path) -> tuple[str, str]:
    if not Path(path).is_file() and str(path) in presets():
        return read_preset(str(path)), f"preset {path}"
    try:
        if Path(path).stat().st_size > 4 * LONGEST:
            raise ValueError(f"more than {LONGEST:,} characters are no settings")
        return text_of(Path(path)), str(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the config {str(path)!r}: {error}; shipped presets: {', '.join(presets())}"
        ) from error


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{where}: expected keys and values such as `steps: 100`")
    return value


def _checked(tree: dict[str, Any], origins: dict[str, str], name: str, context: dict[str, str] | None = None) -> Config:
    try:
        return Config.model_validate(tree, context=context)
    except ValidationError as error:
        settings = tree.get("algorithm")
        algorithm = settings.get("name", "nft") if isinstance(settings, dict) else None
        raise UserError("; ".join(_explain(detail, origins, name, algorithm) for detail in error.errors())) from error


def _set(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    *sections, last = key.split(".")
    for section in sections:
        below = {} if tree.get(section) is None else tree[section]
        if not isinstance(below, dict):
            raise UserError(f"{where}: {section} is a value and holds no keys")
        tree[section] = below
        tree = below
    tree[last] = value


def _explain(detail: ErrorDetails, origins: dict[str, str], name: str, algorithm: str | None) -> str:
    key, keys = _place(detail["loc"], algorithm)
    origin = _origin(key, origins, name)
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
    """The dotted key of a problem, and the known keys there; pydantic's place may hold the kind of a value too."""
    if BY_TASK in loc:  # a task follows, and which of two forms it has
        form = loc.index(BY_TASK) + 2
        loc = loc[:form] + loc[form + 1 :]
    if loc[:1] != ("rewards",) or len(loc) < 3:
        return ".".join(map(str, loc)), known_keys(algorithm=algorithm)
    reward = f"rewards.{loc[1]}"
    return ".".join([reward, *map(str, loc[3:])]), known_keys(KINDS[str(loc[2])], f"{reward}.")


def _origin(key: str, origins: dict[str, str], name: str) -> str:
    """What set a key: the last such override, or else what is called `name`."""
    return next((where for branch, where in reversed(origins.items()) if _same_branch(key, branch)), name)


def _same_branch(one: str, other: str) -> bool:
    """Whether one dotted key equals the other or is below it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def nearest_key(key: str, keys: Iterable[str]) -> str:
    """Of `keys`, the one most like `key`, as a whole and in its last part, by our name or that of other trainers."""

    def likeness(known: str) -> float:
        names = (known, ELSEWHERE.get(known, known))
        return max(_ratio(key, name) + _ratio(key.rpartition(".")[2], name.rpartition(".")[2]) for name in names)

    return max(keys, key=likeness)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
