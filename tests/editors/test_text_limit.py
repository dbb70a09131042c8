"""Instructions as long as an editor takes reach it whole; longer ones are refused, before and at their rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editr1.config.settings import EditorConfig
from editr1.editors.editor import Editor
from editr1.editors.families import FAMILIES
from editr1.editors.open import open_editor
from editr1.editors.text_limit import find_long
from editr1.errors import UserError
from tests.tiny import tiny_sample

PIXELS = 64 * 96
SAMPLE = tiny_sample(size=(96, 64))
TOKENS = 128
CUTTING = sorted(name for name, family in FAMILIES.items() if family.text_limit is not None)


def longest(refused: Callable[[str], bool]) -> int:
    """The largest number of words that is taken."""
    low, high = 1, 1400
    assert refused(words(high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refused(words(middle)) else (middle, high)
    return low


def words(count: int) -> str:
    return " ".join(["a"] * count)


def latents(editor: Editor, instruction: str) -> torch.Tensor:
    return editor.rollout(replace(SAMPLE, instruction=instruction), 1, steps=2, seed=0).latents


@pytest.mark.parametrize("name", CUTTING)
def test_all_of_the_longest_instruction_reaches_the_editor(pipeline_path: Callable[[str], Path], name: str) -> None:
    family, path = FAMILIES[name], pipeline_path(name)
    tokens = TOKENS if family.text_tokens else None
    settings = EditorConfig(path=str(path), text_tokens=tokens)
    count = longest(lambda text: bool(find_long(settings, {"": text})))
    editor = open_editor(path, pixels=PIXELS, text_tokens=tokens)
    whole = latents(editor, words(count))
    assert not torch.equal(latents(editor, "b" + words(count)[1:]), whole), "the first word is cut"
    assert not torch.equal(latents(editor, words(count)[:-1] + "b"), whole), "the last word is cut"
    limit = tokens or family.text_limit or 0
    assert count > limit / 3
    with pytest.raises(UserError, match=rf"^item 'tiny-0': .* has \d+ tokens .*, {family.name} takes {limit}; sh"):
        latents(editor, words(count + 1))
