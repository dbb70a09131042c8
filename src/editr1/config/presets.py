"""The shipped presets: names, text, what each is for. Shell completion reads this, so it imports little."""

from __future__ import annotations

from importlib import resources
from itertools import takewhile

FOLDER = resources.files("editr1") / "presets"


def presets() -> list[str]:
    """Names of the shipped presets."""
    return sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def read_preset(name: str) -> str:
    """The YAML of a shipped preset."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def first_comment(text: str) -> str:
    """The comment that a YAML file begins with, as one line."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def editor_of(name: str) -> str:
    """The path or name of a preset's editor."""
    import yaml

    return str(yaml.safe_load(read_preset(name))["editor"]["path"])
