"""The documents, their blocks of code and their spans of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GUIDES = ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")))
"""What users read to use editr1."""
DOCUMENTS = (*GUIDES, "CONTRIBUTING.md", "CHANGELOG.md")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
COMMANDS = ("", "sh")
"""Languages of blocks that hold commands."""


class Block(NamedTuple):
    """A block of code."""

    document: str
    language: str
    text: str

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command, without comments and variables of the environment."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words:
                yield words


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(*documents: str) -> list[Block]:
    """The blocks of documents, in their order."""
    return [
        Block(document, language, dedent(text))
        for document in documents
        for _, language, text in FENCE.findall(read(document))
    ]


def spans(document: str) -> list[str]:
    """The spans of code, each as one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", read(document)))]


def name_of(settings: str) -> str | None:
    """The name of the file that a block of YAML says in its first line."""
    found = re.match(r"# (\S+\.yaml)\n", settings)
    return found and found[1]
