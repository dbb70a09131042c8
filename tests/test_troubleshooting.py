"""docs/troubleshooting.md quotes messages of the source, each with a remedy."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.documents import ROOT, read

ROWS = re.findall(r"^\| `(.+?)` \| (.+) \|$", read("docs/troubleshooting.md"), re.MULTILINE)
LEAST = 12  # letters that a quotation must have beside names and numbers


def text_of(node: ast.expr) -> str | None:
    """The text of a literal, with "\\0" for each value in it; None for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "\0" for part in node.values)
    return None


@cache
def texts() -> list[str]:
    """All texts of the source."""
    files = sorted((ROOT / "src" / "editr1").rglob("*.py"))
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return [text for node in nodes if isinstance(node, ast.expr) and (text := text_of(node))]


def sources(message: str) -> Iterator[str]:
    """The texts that hold a message, whose "..." stand for values and for words around them."""
    parts = [re.escape(part) for part in message.split("...")]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    return (text for text in texts() if pattern.search(text))


@pytest.mark.parametrize(("message", "remedy"), ROWS)
def test_a_quoted_message_is_one_of_the_source_and_has_a_remedy(message: str, remedy: str) -> None:
    assert next(sources(message), None) is not None
    assert len(message.replace("...", "")) >= LEAST or message in (
        "no logprobs",
        "... is missing",
        "...: not JSON: ...",
        "...: not YAML: ...",
    )
    assert len(remedy) >= 10


def test_the_page_has_a_row_for_each_line_of_its_tables() -> None:
    lines = [line for line in read("docs/troubleshooting.md").splitlines() if line.startswith("|")]
    heads = lines.count("| Message | What to do |")
    assert len(ROWS) == len(lines) - 2 * heads >= 50 and len({message for message, _ in ROWS}) == len(ROWS)


def test_a_message_that_is_nowhere_in_the_source_is_found_out() -> None:
    assert next(sources("the moon is not ...; give it back"), None) is None
