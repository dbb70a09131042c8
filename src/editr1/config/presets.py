"""The shipped presets and additions: names, text, what each is for. Shell completion reads this, so it imports little.

An addition is a few settings that go with any preset or config, such as "+preserve".
"""

from __future__ import annotations

from importlib import resources
from itertools import takewhile

FOLDER = resources.files("editr1") / "presets"


def presets() -> list[str]:
    """Names of the shipped presets."""
    return sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def additions() -> list[str]:
    """Names of the shipped additions, each with its "+"."""
    return sorted(f"+{file.name.removesuffix('.yaml')}" for file in (FOLDER / "additions").iterdir())


def read_preset(name: str) -> str:
    """The YAML of a shipped preset, or of an addition."""
    file = FOLDER / "additions" / f"{name[1:]}.yaml" if name.startswith("+") else FOLDER / f"{name}.yaml"
    return file.read_text(encoding="utf-8")


def first_comment(text: str) -> str:
    """The comment that a YAML file begins with, as one line."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def editor_of(name: str) -> str:
    """The path or name of a preset's editor."""
    import yaml

    return str(yaml.safe_load(read_preset(name))["editor"]["path"])
