"""The words of a judge's questions. A template holds them; a `Prompt` puts them around the images of one request.

Two orders of the message. "paper" (arXiv 2510.16888): source, edit, text. "prefix": text, source, edit, question;
everything before the edit is the same for a whole group, so a server with a prefix cache reads it once, and a causal
judge knows what to look for when it reads the edit. References, if there are any, follow the source in both.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from editr1.config.rewards import JUDGE_DEFAULTS, Order, Scale
from editr1.config.yaml_text import parse_yaml
from editr1.errors import UserError, first_problem, text_of
from editr1.judges.base import JudgeRequest

Question = Literal["score", "yes_no", "think"]
OVERALL = "overall"
PLACES = {"instruction", "requirement", "criterion", "low", "high"}


class Template(BaseModel):
    """The words; {instruction} and the other `PLACES` are filled in in `opening`, `questions`, `criteria` and `tasks`.

    Attributes:
        version: Version of the words; changes with them.
        opening: What the judge is to do.
        source: Words before the source image.
        reference: Words before each reference image; {number} counts them from 1.
        edit: Words before the edit.
        questions: The questions by the answer that they want: one score, yes or no, or thoughts and then a score.
        criteria: The question's subject by criterion, "overall" at least.
        tasks: What to look at, by editing task; a task without an entry adds nothing.
        separator: Text between those words above that come together: opening, task, and question or source.
        no_requirement: Words for the requirement of an item that has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    opening: str
    source: str = "Source:"
    reference: str = "Reference {number}:"
    edit: str = "Edit:"
    questions: dict[Question, str]
    criteria: dict[str, str]
    tasks: dict[str, str] = {}
    separator: str = " "
    no_requirement: str = "None."

    @field_validator("opening", "questions", "criteria", "tasks")
    @classmethod
    def _known_places(cls, value: str | Mapping[str, str], field: ValidationInfo) -> str | Mapping[str, str]:
        for text in [value] if isinstance(value, str) else value.values():
            check_places(text, PLACES - {"criterion"} if field.field_name == "criteria" else PLACES)
        return value

    @field_validator("reference")
    @classmethod
    def _number(cls, value: str) -> str:
        check_places(value, {"number"})
        return value

    @field_validator("criteria")
    @classmethod
    def _overall(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if OVERALL not in value:
            raise ValueError(f"{OVERALL!r} is missing")
        return value


@dataclass(frozen=True)
class Prompt:
    """A template in one order of the message.

    Attributes:
        template: The words.
        name: Name and version of the template; a user's file is named with the hash of its content.
        order: Order of the message.
    """

    template: Template
    name: str
    order: Order

    @property
    def version(self) -> str:
        """Name, version and order, as recorded with every score."""
        return f"{self.name}/{self.order}"

    def parts(
        self,
        request: JudgeRequest,
        question: Question = "score",
        criterion: str = OVERALL,
        scale: Scale = JUDGE_DEFAULTS.scale,
    ) -> tuple[str | Image, ...]:
        """Texts and images of the one message.

        Raises:
            UserError: The template has no such question or criterion.
        """
        words = self.template
        for name, known in ((question, words.questions), (criterion, words.criteria)):
            if name not in known:
                raise UserError(f"the judge's template {self.name} has no {name!r}; it has {', '.join(known)}")
        places = {
            "instruction": request.sample.instruction,
            "requirement": request.sample.requirement or words.no_requirement,
            "low": str(scale[0]),
            "high": str(scale[1]),
        }
        places["criterion"] = words.criteria[criterion].format(**places)
        task, between = words.tasks.get(request.sample.task, "").format(**places), words.separator
        opening = between.join(filter(None, (words.opening.format(**places), task)))
        ending = words.questions[question].format(**places)
        shown = (request.sample.source, *references(request, words.reference), words.edit, request.edit)
        if self.order == "prefix":
            parts = (f"{opening}{between}{words.source}", *shown, ending)
        else:
            parts = (words.source, *shown, f"{opening}{between}{ending}")
        return tuple(part for part in parts if part != "")


def references(request: JudgeRequest, words: str) -> Iterator[str | Image]:
    """The references of a request, each after `words` with its number."""
    for number, image in enumerate(request.sample.references, start=1):
        yield words.format(number=number)
        yield image


def check_places(text: str, places: Collection[str]) -> None:
    """A ValueError if `format` would fill in anything but these places."""
    for _, name, shape, conversion in string.Formatter().parse(text):
        if name is not None and name not in places:
            raise ValueError(f"{{{name}}} is not filled in; there are {', '.join(sorted(places))}")
        if shape or conversion:
            raise ValueError(f"{{{name}}} takes no format after its name")


def load_prompt(template: str, order: Order) -> Prompt:
    """A shipped template by its name, or a user's YAML file.

    Raises:
        UserError: There is no such template or file, or the file is no template.
    """
    folder = resources.files("editr1.judges") / "templates"
    shipped = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
    if template in shipped:
        text = (folder / f"{template}.yaml").read_text(encoding="utf-8")
        words = _parse(text, template)
        return Prompt(words, f"{template}-{words.version}", order)
    path = Path(template)
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"judge.template {template!r} is neither a file ({error}) nor shipped ({', '.join(shipped)})"
        ) from error
    words = _parse(text, template)
    return Prompt(words, f"{path.stem}-{words.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}", order)


def _parse(text: str, where: str) -> Template:
    words = parse_yaml(text, f"judge template {where}")
    if isinstance(words, dict) and isinstance(words.get("questions"), list):
        raise UserError(
            f'judge template {where}: it says itself how answers are read; set judge.method to "template" (or set '
            "judge.template to full)"
        )
    try:
        return Template.model_validate(words)
    except ValidationError as error:
        raise UserError(f"judge template {where}: {first_problem(error)}") from error
