"""Every way to damage one place of a JSON value."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

REMOVED = object()
OTHERS: tuple[Any, ...] = (None, "x", "\ud800", [], [1], {}, {"a": {"b": 1}}, -1, 0, True, 1e308, 1e-320, 10**200)
RAW = ("1e400", "NaN", "-Infinity", 5000 * "9", 1000 * "[" + 1000 * "]", '{"a": 1, "a": 2}', '"\\u0000"')
"""What no `json.dumps` writes."""
HOLE = "the hole for raw text"
Place = tuple[str | int, ...]


def places(value: Any) -> Iterator[Place]:
    """The place of every value inside of one; of a list, that of its first and its last."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list) and value:
        inner = [(i, value[i]) for i in sorted({0, len(value) - 1})]
    for key, one in inner:
        yield (key,)
        yield from ((key, *rest) for rest in places(one))


def at(value: Any, place: Place, new: Any) -> Any:
    """A copy with another value at this place, or with none."""
    whole = copy.deepcopy(value)
    *above, last = place
    inner = whole
    for key in above:
        inner = inner[key]
    if new is REMOVED:
        del inner[last]
    else:
        inner[last] = new
    return whole


def damaged(value: Any) -> Iterator[tuple[str, str]]:
    """Each damage in words, and the text that it leaves."""
    for place in places(value):
        name = ".".join(map(str, place))
        yield f"{name} removed", json.dumps(at(value, place, REMOVED))
        for new in OTHERS:
            yield f"{name} as {str(new)[:20]!r}", json.dumps(at(value, place, new))
        for raw in RAW:
            yield f"{name} as {raw[:20]}", json.dumps(at(value, place, HOLE)).replace(json.dumps(HOLE), raw)
