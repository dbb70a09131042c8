"""Text of users as text: no tokenizer reads a control token in it.

A chat template writes "<|im_end|>" to end a turn, a pipeline "<|image_pad|>" where its picture is. In an instruction
they would end the user's turn, speak for the judge, or stand for a picture that is not there. So a space parts whatever
is, or looks like, one: "< |im_end|>" is the same to a person, and no token. All other text is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from editr1.errors import UserError

LOOKS_LIKE_A_TOKEN = re.compile(r"<(?=[|｜<]|/?\w+>)|\[(?=/?[A-Z_]+\])")
"""The first character of "<|im_end|>", "<｜User｜>", "</s>", "<start_of_turn>", "<<SYS>>", "[INST]", "[/INST]"."""
BYTES_MAX = 3000
"""Longest text in UTF-8: tokenizers make fewer tokens than bytes, and Qwen-Image ends at 4,094 with its pictures'."""


def fault_of(text: str) -> str | None:
    """Why a text cannot be an instruction or a requirement; None if it can."""
    if fault := unreadable(text):
        return fault
    size = len(text.encode())
    return f"it has {size} bytes, {BYTES_MAX} at most" if size > BYTES_MAX else None


def unreadable(text: str) -> str | None:
    """Which of its characters no text has; None if there are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it holds half of a character (a lone surrogate)"
    return "it holds a NUL" if "\0" in text else None


def plain(text: str) -> str:
    """Text without what is a control token in the vocabularies that are known, whatever model reads it."""
    return LOOKS_LIKE_A_TOKEN.sub(r"\g<0> ", text)


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """The tokens of a transformers tokenizer that it finds in text before it splits it, but for words and spaces."""
    added = tokenizer.added_tokens_decoder.values()
    return frozenset(t.content for t in added if t.special or not (t.content.isspace() or t.content.isalnum()))


def without_tokens(text: str, tokens: Collection[str]) -> str:
    """Text in which a space parts each of `tokens`.

    Raises:
        UserError: A token has one character, or a space does not part it.
    """
    if not (known := [re.escape(token) for token in sorted(tokens, key=len, reverse=True) if token]):
        return text
    pattern = re.compile("|".join(known))
    parted = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    if match := pattern.search(parted):
        raise UserError(f"the text holds {match[0]!r}, a control token of the model; leave it out")
    return parted
