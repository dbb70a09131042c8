r"""A user's template for a model that was trained on its own words: whole messages, and how each answer is read.

    version: "1"
    questions:
      - message:
          - {image: source}
          - {image: edit}
          - "Instruction: {instruction} Answer with {{\"score\": N}}, N from 1 to 5."
        answers:
          execution: {json: score, min: 1, max: 5}

A message is sent as it is written, to the byte; only {instruction} and {requirement} are filled in, an empty one with
nothing. One answer may hold several criteria.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from editr1.config.yaml_text import parse_yaml
from editr1.errors import UserError, first_problem, text_of
from editr1.judges.answer_rules import AnswerRule
from editr1.judges.base import MLLM, Answer, Ask, JudgeRequest, Score
from editr1.judges.criteria import CriteriaJudge
from editr1.judges.prompts import check_places

PLACES = {"instruction", "requirement"}


class Picture(BaseModel):
    """A picture of a message; the references are all further sources, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Literal["source", "references", "edit"]


class CriticQuestion(BaseModel):
    """One message, and what is read from its answer.

    Attributes:
        message: Texts and pictures in their order.
        answers: How the number of each criterion is read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: tuple[str | Picture, ...] = Field(min_length=1)
    answers: dict[str, AnswerRule] = Field(min_length=1)

    @field_validator("message")
    @classmethod
    def _shows_the_edit(cls, message: tuple[str | Picture, ...]) -> tuple[str | Picture, ...]:
        for part in message:
            if isinstance(part, str):
                check_places(part, PLACES)
        if not any(isinstance(part, Picture) and part.image == "edit" for part in message):
            raise ValueError("it does not show the edit; put {image: edit} where it goes")
        return message

    @model_validator(mode="after")
    def _one_token(self) -> CriticQuestion:
        if self.choices and len(self.answers) > 1:
            raise ValueError("answers: tokens are the whole answer; ask about other criteria in another question")
        return self

    @property
    def choices(self) -> tuple[str, ...]:
        """The answers whose probabilities are read."""
        return next((rule.tokens for rule in self.answers.values() if rule.tokens is not None), ())

    def parts(self, request: JudgeRequest) -> Iterator[str | Image]:
        """Texts and images of the message."""
        sample = request.sample
        places = {"instruction": sample.instruction, "requirement": sample.requirement}
        images = {"source": (sample.source,), "references": sample.references, "edit": (request.edit,)}
        for part in self.message:
            if isinstance(part, Picture):
                yield from images[part.image]
            elif text := part.format(**places):
                yield text


class CriticTemplate(BaseModel):
    """A user's file.

    Attributes:
        version: Version of the words; changes with them.
        questions: The messages.
        system: A system message before each; none if it is empty.
        temperature: Sampling temperature; 0 takes the likeliest tokens.
        max_tokens: Longest answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    questions: tuple[CriticQuestion, ...] = Field(min_length=1)
    system: str = ""
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=512, gt=0, le=100_000)

    @model_validator(mode="after")
    def _each_criterion_once(self) -> CriticTemplate:
        names = [name for question in self.questions for name in question.answers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"questions: the criterion {twice!r} is there twice")
        return self


@dataclass(frozen=True)
class CriticPrompt:
    """A template by its name.

    Attributes:
        template: The words.
        version: Name, version and hash of the content, as recorded with every score.
    """

    template: CriticTemplate
    version: str

    @property
    def criteria(self) -> Mapping[str, CriticQuestion]:
        """The question of each criterion."""
        return {name: question for question in self.template.questions for name in question.answers}


def load_critic(file: str) -> CriticPrompt:
    """The template in a user's YAML file.

    Raises:
        UserError: There is no such file, or it is no such template.
    """
    path = Path(file)
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f'judge.template {file!r}: judge.method "template" needs a file of yours, with `questions` of a `message` '
            f"and `answers` each ({error})"
        ) from error
    try:
        template = CriticTemplate.model_validate(parse_yaml(text, f"judge template {file}"))
    except ValidationError as error:
        raise UserError(f"judge template {file}: {first_problem(error)}") from error
    return CriticPrompt(template, f"{path.stem}-{template.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")


class CriticJudge(CriteriaJudge):
    """Asks in the words of a `CriticPrompt`, and reads answers by its rules.

    Args:
        model: The model that answers.
        prompt: The words of the questions.
        **settings: As for `CriteriaJudge`.
    """

    method_name = "template"

    def __init__(self, model: MLLM, prompt: CriticPrompt, **settings: Any) -> None:
        self.prompt, self.sampled = prompt, prompt.template.temperature > 0
        super().__init__(model, prompt.version, **settings)

    def questions(self, task: str) -> list[tuple[str, ...]]:
        """The criteria that each question about an item of a task asks for."""
        wanted = self.weights(task)
        groups = [tuple(name for name in each.answers if name in wanted) for each in self.prompt.template.questions]
        return [names for names in groups if names]

    def ask(self, request: JudgeRequest, criterion: str) -> Ask:
        """The question from whose answer a criterion is read."""
        template, question = self.prompt.template, self.prompt.criteria[criterion]
        return Ask(
            tuple(question.parts(request)),
            choices=question.choices,
            max_tokens=1 if question.choices else template.max_tokens,
            temperature=0.0 if question.choices else template.temperature,
            system=template.system,
        )

    def read(self, criterion: str, answer: Answer) -> Score:
        """The score in an answer, by the rule of a criterion."""
        return self.prompt.criteria[criterion].answers[criterion].read(answer)
