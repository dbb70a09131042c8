"""The reference of the docs site: every setting and every command, as Markdown made from the code itself.

`mkdocs build` calls it through `scripts/docs_site.py`; nothing that it writes is in git.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import editr1
from editr1.algorithms.base import find_algorithms
from editr1.cli.main import app
from editr1.config.explain import default_of, meaning
from editr1.config.rewards import KINDS
from editr1.config.settings import Config

BOUNDS = {"ge": "at least", "min": "at least", "gt": "above", "le": "at most", "max": "at most", "lt": "below"}
KINDS_IN_WORDS = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    type(None): "null",
}
HEAD = ("| Setting | Values | Default | Meaning |", "| --- | --- | --- | --- |")
OPTIONS = ("| | Values | Default | Meaning |", "| --- | --- | --- | --- |")
Section = tuple[str, str, type[BaseModel]]
"""The prefix of the keys of a section, its title, and its class."""


def settings_page() -> str:
    """All settings of a run, by section."""
    parts = ["# Settings\n", "`editr1 config show NAME` shows them with the values of a preset or a file.\n"]
    for prefix, title, section in sections():
        about = " ".join((section.__doc__ or "").split())
        rows = [
            _setting(section, prefix, name)
            for name, field in section.model_fields.items()
            if prefix or not _is_section(field.annotation)
        ]
        parts += [f"## {title}\n", f"{about}\n", *HEAD, *rows, ""]
    return "\n".join(parts)


def sections() -> Iterator[Section]:
    """Every section of a config, the keys of no section first, with each algorithm and each kind of reward."""
    yield "", "Keys of the run itself", Config
    for name, field in Config.model_fields.items():
        if name == "algorithm":
            for kind, algorithm in sorted(find_algorithms().items(), key=lambda each: each[0] != field.default.name):
                yield f"{name}.", f"algorithm, name: {kind}", algorithm
        elif name == "rewards":
            for kind, section in KINDS.items():
                yield f"{name}.NAME.", f"rewards, kind: {kind}", section
        else:
            yield from _nested(name, field)


def _nested(name: str, field: FieldInfo) -> Iterator[Section]:
    """The section that a field holds, and those within it."""
    for section in _below(field):
        yield f"{name}.", name, section
        for inner, below in section.model_fields.items():
            yield from _nested(f"{name}.{inner}", below)


def _below(field: FieldInfo) -> list[type[BaseModel]]:
    """The section that a field holds, if there is one."""
    return [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _setting(section: type[BaseModel], prefix: str, name: str) -> str:
    field = section.model_fields[name]
    default = "required" if field.is_required() else _code(default_of(section, name))
    return _row(f"`{prefix}{name}`", _values(field.annotation, field.metadata), default, meaning(field))


def _values(annotation: Any, metadata: Any = ()) -> str:
    """The values of a type in words."""
    found = [(word, getattr(each, name, None)) for each in metadata for name, word in BOUNDS.items()]
    limits = ", ".join(f"{word} {value:,}" for word, value in found if value is not None)
    return f"{_kind(annotation)} {limits}".strip()


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], [limit for each in arguments[1:] for limit in getattr(each, "metadata", [each])])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(one) for one in arguments))
    if origin in (tuple, list):
        return f"list ({', '.join(dict.fromkeys(_kind(one) for one in arguments if one is not Ellipsis))})"
    if origin is dict:
        return f"mapping ({': '.join(map(_kind, arguments))})"
    return "section" if _is_section(annotation) else KINDS_IN_WORDS[annotation]


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str | Path) else json.dumps(value)}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def commands_page() -> str:
    """All commands with their arguments and options."""
    parts = [
        "# Commands\n",
        "Exit codes: 0 done, 2 wrong input (one line says what, where, and how to mend it), 130 stopped.\n",
    ]
    for name, command in commands():
        parts += [f"## {name}\n", f"{(command.help or '').strip()}\n", f"```text\n{_usage(name, command)}\n```\n"]
        if rows := [_option(each) for each in command.params if each.name != "help"]:
            parts += [*OPTIONS, *rows, ""]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its whole name, "editr1" itself first, groups left out."""
    root: Any = typer.main.get_command(app)
    yield "editr1", root
    for name, command in root.commands.items():
        below = getattr(command, "commands", None)
        if below is None:
            yield f"editr1 {name}", command
        else:
            yield from ((f"editr1 {name} {last}", each) for last, each in below.items())


def _usage(name: str, command: Any) -> str:
    arguments = [each.metavar or each.name for each in command.params if each.param_type_name == "argument"]
    return " ".join([name, "[OPTIONS]", *arguments, *(["COMMAND"] if hasattr(command, "commands") else [])])


def _option(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    names = [parameter.metavar or parameter.name] if argument else [*parameter.opts, *parameter.secondary_opts]
    shown = "" if parameter.default is None or parameter.default is False else _code(parameter.default)
    default = "required" if parameter.required else shown
    flag = not argument and parameter.is_flag
    kind = "" if flag else _values(parameter.type_descriptor.annotation, [parameter])
    return _row(", ".join(f"`{each}`" for each in names), kind, default, parameter.help or "")


def python_page() -> str:
    """The names of `editr1.__all__`, which mkdocstrings describes from their docstrings."""
    names = "".join(f"\n## {name}\n\n::: editr1.{name}\n" for name in editr1.__all__)
    return f"# Python names\n\n[Python](../python.md) explains how to use them.\n{names}"


PAGES = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/python.md": python_page,
}
"""The pages by their place in the site."""
