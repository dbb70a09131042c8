"""YAML of strangers: one value, or one line that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from editr1.errors import UserError, first_line, text_of

LONGEST = 2_000_000
"""Characters of a text at most."""
LARGEST = 100_000
"""Values in it at most, aliases followed."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which takes the last of two equal keys, made to refuse them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, where: str) -> Any:
    """The value in a YAML file; `where` begins the line of an error.

    Raises:
        UserError: The file cannot be read, or `parse_yaml` refuses it.
    """
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot be read: {error}") from error
    return parse_yaml(text, where)


def parse_yaml(text: str, where: str) -> Any:
    """The value that a text means; `where` begins the line of an error.

    Raises:
        UserError: It is not YAML, a key is there twice, it is too long, or it means too many values.
    """
    if len(text) > LONGEST:
        raise UserError(f"{where}: more than {LONGEST:,} characters are no settings")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, RecursionError) as error:  # a date such as 2024-13-45, 5,000 digits, 3,000 brackets
        raise UserError(f"{where}: not YAML: {first_line(error)}") from error
    _check_size(value, where)
    return value


def _check_size(value: Any, where: str) -> None:
    """Refuse what aliases make out of a short text."""
    waiting, count = [value], 0
    while waiting:
        count += 1
        if count > LARGEST:
            raise UserError(f"{where}: means more than {LARGEST:,} values; write them without aliases")
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
