"""Encodings of prompts and sources in memory, for as long as a block lasts: rollouts of the same items share them.

A pipeline repeats the encoding of a prompt for each of its edits. So that rollouts of any number of edits share it, a
prompt is encoded for one edit, and its rows are repeated here. Whether that is what the pipeline does is seen at the
first encoding, which is made in both ways; one that does something else encodes every time.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from editr1.editors.editor import temporarily
from editr1.editors.encoding_cache import Opaque, Tree, digest, encoders_of, pack, unpack

log = logging.getLogger(__name__)

EDITS = "num_images_per_prompt"
"""The argument of diffusers' `encode_prompt` by which rows are repeated."""
Kept = dict[str, tuple[Tree, dict[str, Tensor]]]


class Encodings:
    """`with Encodings(pipe).kept():` encodes each prompt and each source once inside, with no bit changed.

    Args:
        pipe: The pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._repeats: dict[str, bool] = {}  # whether a method repeats rows, by its name; where that is known

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep every encoding, in the memory of the CPU, to the end of the block."""
        results: Kept = {}
        with ExitStack() as stack:
            for owner, name in encoders_of(self._pipe):
                stack.enter_context(temporarily(owner, **{name: self._remember(getattr(owner, name), results)}))
            yield

    def _remember(self, method: Callable[..., Any], results: Kept) -> Callable[..., Any]:
        signature, name = inspect.signature(method), method.__name__

        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            edits = bound.arguments.get(EDITS, 1)
            if EDITS in bound.arguments:
                bound.arguments[EDITS] = 1
            if not self._repeats.get(name, True):
                return method(*args, **kwargs)
            try:
                value = repeat_rows(self._encode(method, bound, results), edits)
            except Opaque as reason:
                log.debug("%s encodes every time: %s", name, reason)
                self._repeats[name] = False
                return method(*args, **kwargs)
            if edits == 1 or name in self._repeats:
                return value
            right = method(*args, **kwargs)
            self._repeats[name] = digest(value) == digest(right)
            return right

        return call

    def _encode(self, method: Callable[..., Any], bound: inspect.BoundArguments, results: Kept) -> Any:
        """What the method returns for these arguments; Opaque if it cannot be kept."""
        device = self._pipe._execution_device
        key = digest([method.__name__, device, bound.arguments])
        if key not in results:
            tensors: dict[str, Tensor] = {}
            results[key] = pack(method(*bound.args, **bound.kwargs), tensors), tensors
        tree, tensors = results[key]
        return unpack(tree, {place: tensor.clone() for place, tensor in tensors.items()}, device)


def repeat_rows(value: Any, times: int) -> Any:
    """A nest in which the tensors of one row have so many of it."""
    if isinstance(value, Tensor):
        one = value.ndim > 0 and len(value) == 1
        return value.expand(times, *value.shape[1:]).contiguous() if one and times > 1 else value
    return type(value)(repeat_rows(each, times) for each in value) if type(value) in (list, tuple) else value
