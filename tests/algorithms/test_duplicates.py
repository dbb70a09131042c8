"""No two algorithms say the same thing at length: what they share is in the base class or in a file of its own.

The rule: no two files of the folder have the same `LINES` lines of code in a row. Blank lines, comments, imports and
docstrings are no code, and indentation does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from editr1 import algorithms

FOLDER = Path(*algorithms.__path__)
LINES = 6


def code_of(text: str) -> list[str]:
    """The lines of code, in their order."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                left_out |= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [line for number, line in lines if line and number not in left_out]


def shared(texts: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Pairs of files with the first line of a block that both have."""
    places: dict[tuple[str, ...], str] = {}
    for name, text in texts.items():
        code = code_of(text)
        for start in range(len(code) - LINES + 1):
            block = tuple(code[start : start + LINES])
            if (other := places.setdefault(block, name)) != name:
                yield other, name, block[0]


def test_no_two_files_of_algorithms_share_a_block_of_six_lines_of_code() -> None:
    texts = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.py"))}
    assert {"nft.py", "base.py"} < texts.keys()
    assert list(shared(texts)) == []


def test_a_shared_block_is_found_whatever_stands_between_its_lines() -> None:
    block = [f"x{i} = {i}" for i in range(LINES)]
    one, other = "\n".join(block), "def f():\n    " + "\n\n    # Said.\n    ".join(block)
    assert list(shared({"one": one, "other": other})) == [("one", "other", "x0 = 0")]
    assert list(shared({"one": one, "shorter": "\n".join(block[1:])})) == []
    docs = "\n".join(['"""', *block, '"""', *["import a"] * LINES])
    assert list(shared({"one": one, "docs": docs, "other docs": docs})) == []
