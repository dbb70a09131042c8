"""The words of the questions, the types of editing task, and what each type needs of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from editr1.config.yaml_text import parse_yaml


class Words(BaseModel):
    """The file `templates/words.yaml`; its texts are formatted with what they name in braces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    objects: str
    opening: str
    picture: str
    object: str
    other: str
    answer: str
    more: Mapping[str, str]
    sense: str
    requirement: str
    task: str
    tasks: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """What items of one type need.

    Attributes:
        needs_object: Whether the edit is of one object of the picture.
        drawn: Whether a red box is drawn around the object.
        needs_other: Whether a thing of another picture is a reference.
        says: Words that the instruction must hold.
        quotes: Whether the instruction quotes the old and the new words of a text.
    """

    needs_object: bool = True
    drawn: bool = False
    needs_other: bool = False
    says: str = ""
    quotes: bool = False


TASKS: Mapping[str, Task] = {
    "replace": Task(),
    "adjust": Task(),
    "remove": Task(),
    "background": Task(needs_object=False),
    "compose": Task(),
    "action": Task(),
    "text": Task(needs_object=False, quotes=True),
    "redbox": Task(drawn=True, says="red box"),
    "reference": Task(needs_other=True, says="picture 2"),
    "extract": Task(),
}
"""The ten types of the paper, under the names that judges' templates know; the paper calls compose Hybrid."""


@lru_cache(maxsize=1)
def load_words() -> Words:
    """The shipped words."""
    text = (files("editr1.recipe") / "templates" / "words.yaml").read_text(encoding="utf-8")
    return Words.model_validate(parse_yaml(text, "words.yaml"))
