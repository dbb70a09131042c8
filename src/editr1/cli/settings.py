"""The commands `editr1 presets` and `editr1 config show`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from editr1.cli.completion import configs, overrides
from editr1.config.presets import additions, editor_of, first_comment, presets, read_preset
from editr1.terminal import wrap

ConfigName = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a shipped preset.", autocompletion=configs)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[section.key=value]...",
        help="Settings that differ, such as optim.lr=1e-4, or an addition, such as +preserve.",
        autocompletion=overrides,
    ),
]
INDENT = 4 * " "
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def list_presets(as_json: AsJson = False) -> None:
    """List the shipped presets, with editor and purpose; then what goes with any of them, such as +preserve."""
    editors = {name: editor_of(name) for name in presets()} | dict.fromkeys(additions(), "any editor")
    rows = [{"name": name, "editor": of, "about": first_comment(read_preset(name))} for name, of in editors.items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo("\n".join([f"{row['name']:{width}}  {row['editor']}", *wrap(row["about"], INDENT, INDENT)]))


def show(
    config: ConfigName,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting of a run: its value, its default, and what it means; "*" marks those that differ."""
    from editr1.config.explain import explain
    from editr1.config.loading import load_config

    parts = [*explain(load_config(config, overrides or []))]
    if as_json:
        rows = [{**asdict(row), "changed": row.changed} for part in parts for row in part.settings]
        typer.echo(json.dumps(rows, indent=1))
    else:
        typer.echo("\n".join(_text(parts)))


def _text(parts: Sequence[Any]) -> Iterator[str]:
    """The settings as lines for people, by section."""
    rows = [row for part in parts for row in part.settings]
    yield f"* differs from the default ({sum(row.changed for row in rows)} of {len(rows)} settings)"
    for part in parts:
        yield from ("", *wrap(f"{part.name}: {part.about}", "", ""))
        for row in part.settings:
            default = "no default" if row.required else f"default {_word(row.default)}" if row.changed else "default"
            mark = "* " if row.changed else "  "
            yield from wrap(f"{row.key} = {_word(row.value)}  ({default})", mark, INDENT)
            yield from wrap(row.meaning, INDENT, INDENT)


def _word(value: Any) -> str:
    """A value as an override takes it."""
    return value if isinstance(value, str) else json.dumps(value)
