"""A reward that is made of others by a formula of names, numbers, +, *, ** and parentheses.

    execution * (0.6 + 0.4 * consistency)

is the gated reward of FIRM (arXiv 2603.12247): what an edit keeps counts as far as it does what was asked. There is no
minus and no division, and an exponent is a number above 0, so a formula rises in every name, and its value is between
those at all zeros and all ones.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LONGEST, DEEPEST = 1000, 50
TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|[A-Za-z_][A-Za-z0-9_]*|\*\*|[+*()])", re.ASCII)
SLACK = 1e-9
"""What numbers that should add up to 1 may be above it."""

Node = float | str | tuple[str, "Node", "Node"]
"""A number, a name, or a sign between two nodes."""


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


OPERATIONS = {"+": operator.add, "*": operator.mul, "**": _power}


@dataclass(frozen=True)
class Formula:
    """A formula, parsed.

    Attributes:
        text: The formula as it is written.
        tree: Its last operation.
        names: The names in it, each once, in their order.
    """

    text: str
    tree: Node
    names: tuple[str, ...]

    def value(self, values: Mapping[str, float]) -> float:
        """The value in [0, 1] at values in [0, 1] of all names."""
        return min(_value(self.tree, values), 1.0)


def parse_formula(text: str) -> Formula:
    """The formula that a text is.

    Raises:
        ValueError: It is none, names nothing, may be above 1, or is the same at all values.
    """
    if len(text) > LONGEST or text.count("(") > DEEPEST:
        raise ValueError(f"a formula has at most {LONGEST} characters and {DEEPEST} parentheses")
    tree = _Parser(text).whole()
    names = tuple(dict.fromkeys(_names(tree)))
    least, greatest = (_value(tree, dict.fromkeys(names, bound)) for bound in (0.0, 1.0))
    if not greatest <= 1 + SLACK:  # not a number, if numbers on the way are too large for one
        raise ValueError(f"the formula {text!r} reaches {greatest:g}, and a reward is at most 1; lower its numbers")
    if greatest == least:
        raise ValueError(f"the formula {text!r} is always {least:g}; name the rewards that it is made of")
    return Formula(text, tree, names)


class _Parser:
    """Reads a text from left to right: a sum of products of numbers, names and sums in parentheses."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, place = text, list[str](), 0
        while text[place:].strip():
            if (match := TOKEN.match(text, place)) is None:
                raise self._fault(f"has {text[place:].strip()[0]!r}, which it may not")
            self.tokens.append(match[1])
            place = match.end()
        self.tokens.reverse()  # the next one is the last of the list

    def whole(self) -> Node:
        node = self._sum()
        if self.tokens:
            raise self._fault(f"has {self.tokens[-1]!r} where + or * should be")
        return node

    def _sum(self) -> Node:
        node = self._product()
        while self._takes("+"):
            node = ("+", node, self._product())
        return node

    def _product(self) -> Node:
        node = self._power()
        while self._takes("*"):
            node = ("*", node, self._power())
        return node

    def _power(self) -> Node:
        node = self._factor()
        if not self._takes("**"):
            return node
        exponent = self.tokens.pop() if self.tokens else "its end"
        if not exponent[0].isdigit() or float(exponent) == 0:
            raise self._fault(f"has {exponent} where an exponent should be, a number above 0")
        return ("**", node, float(exponent))

    def _factor(self) -> Node:
        if self._takes("("):
            node = self._sum()
            if not self._takes(")"):
                raise self._fault("lacks a )")
            return node
        token = self.tokens.pop() if self.tokens else "its end"
        if token[0].isdigit():
            return float(token)
        if token in ("**", *"+*()", "its end"):
            raise self._fault(f"has {token} where a name or a number should be")
        return token

    def _takes(self, sign: str) -> bool:
        """Whether the next token is this sign, which is then read."""
        found = self.tokens[-1:] == [sign]
        if found:
            self.tokens.pop()
        return found

    def _fault(self, what: str) -> ValueError:
        return ValueError(f"the formula {self.text!r} {what}; it is made of names, numbers, +, *, ** and parentheses")


def _value(node: Node, values: Mapping[str, float]) -> float:
    if isinstance(node, tuple):
        sign, *sides = node
        one, other = (_value(side, values) for side in sides)
        return OPERATIONS[sign](one, other)
    return values[node] if isinstance(node, str) else node


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, tuple):
        yield from (name for side in node[1:] for name in _names(side))
    elif isinstance(node, str):
        yield node
