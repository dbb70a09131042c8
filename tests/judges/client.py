"""A client of test servers that gives up and tries again within milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from editr1.config.rewards import JudgeConfig
from editr1.judges.base import Answer
from editr1.judges.models.remote import OpenAIModel

DIGITS = tuple("012345")


def remote_model(*urls: str, model: str = "test", **settings: Any) -> OpenAIModel:
    own = {name: settings.pop(name) for name in ("top_logprobs", "backoff") if name in settings}
    return OpenAIModel(JudgeConfig(endpoints=urls, model=model, **settings), **own)


@contextmanager
def client(*urls: str, **settings: Any) -> Iterator[OpenAIModel]:
    model = remote_model(*urls, **{"backoff": 0.002, "timeout": 20.0, **settings})
    try:
        yield model
    finally:
        model.close()


def without_time(answers: list[Answer]) -> list[Answer]:
    return [replace(answer, seconds=0.0) for answer in answers]
