"""Rollouts of any number of edits share what is encoded, with no bit changed, on every family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from editr1.editors.editor import Editor, Rollout
from editr1.editors.encoding_once import Encodings
from editr1.editors.families import FAMILIES
from editr1.editors.open import open_editor
from tests.editors.test_encoding_cache import same
from tests.tiny import tiny_sample

AREA = 64 * 96
EVERY_TIME = ("JoyImageEditPlusPipeline", "Kandinsky5I2IPipeline", "QwenImage21Pipeline")
"""Pipelines that encode every time, as they repeat the prompt itself, or some tensors of it alone."""


def make(editor: Editor, edits: int) -> Rollout:
    return editor.rollout(tiny_sample(size=(96, 64)), edits, steps=2, seed=1, scheduler="euler")


@contextmanager
def text_calls(editor: Editor) -> Iterator[list[nn.Module]]:
    """A list that grows with every call of a text encoder."""
    calls = list[nn.Module]()
    encoders = [part for name, part in editor.pipe.components.items() if name.startswith("text_encoder") and part]
    hooks = [
        module.register_forward_hook(lambda module, *_: calls.append(module))
        for encoder in encoders
        for module in encoder.modules()
    ]
    yield calls
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_encodes_once_for_rollouts_of_other_numbers_of_edits(pipeline_path: Any, name: str) -> None:
    path = pipeline_path(name)
    editor, plain = (open_editor(path, pixels=AREA) for _ in range(2))
    encodes = any(key.startswith("text_encoder") for key in editor.pipe.components)
    with Encodings(editor.pipe).kept(), text_calls(editor) as calls:
        for edits in (3, 2):
            assert same(make(editor, edits), make(plain, edits))
            assert bool(calls) == (encodes and (edits == 3 or name in EVERY_TIME)), edits
            calls.clear()


class Numbered:
    """A pipeline whose encoding is of one row, and of others if there are more edits."""

    _execution_device = torch.device("cpu")

    def __init__(self, vary: bool) -> None:
        self.vary, self.components, self.calls = vary, dict[str, Any](), list[int]()

    def encode_prompt(self, prompt: str, num_images_per_prompt: int = 1) -> tuple[Tensor, None]:
        self.calls.append(num_images_per_prompt)
        rows = torch.arange(float(num_images_per_prompt)) * self.vary
        return rows[:, None] + torch.full((1, 3), float(len(prompt))), None


@pytest.mark.parametrize("vary", [True, False])
def test_a_pipeline_that_does_more_than_repeat_a_row_encodes_every_time(vary: bool) -> None:
    pipe = Numbered(vary)
    encodings = Encodings(pipe)
    with encodings.kept():
        for prompt in ("one", "other"):
            for edits in (4, 2, 4):
                rows, nothing = pipe.encode_prompt(prompt, num_images_per_prompt=edits)
                expected, _ = Numbered(vary).encode_prompt(prompt, edits)
                assert torch.equal(rows, expected) and nothing is None
                rows.zero_()  # is the caller's own
    assert pipe.calls == ([1, 4, 2, 4, 4, 2, 4] if vary else [1, 4, 1])
    with encodings.kept():  # what was kept is gone
        pipe.encode_prompt("one", 2)
    pipe.encode_prompt("one", 2)
    assert pipe.calls[-2:] == ([2, 2] if vary else [1, 2])


def test_what_cannot_be_kept_is_encoded_every_time() -> None:
    pipe: Any = Numbered(False)
    with Encodings(pipe).kept():
        for _ in range(2):
            assert pipe.encode_prompt(SimpleLength(), 2)[0].tolist() == [[7.0] * 3] * 2
    assert pipe.calls == [2, 2]


class SimpleLength(SimpleNamespace):
    def __len__(self) -> int:
        return 7
