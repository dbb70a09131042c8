"""What a judge computes per question: two operations per parameter, which its name tells, and token."""

from __future__ import annotations

import re
from dataclasses import dataclass

from editr1.config.rewards import JudgeConfig
from editr1.config.settings import Config
from editr1.errors import UserError
from editr1.planning.gpus import Kind

TOKEN_SIDE = 28
"""Pixels of the side of a picture's token (Qwen2.5-VL)."""
TEXT = 300
"""Tokens of the words of a question, about: template "full", an instruction, a requirement."""
BYTES = 2
"""Of a weight in bfloat16."""
ROOM = 1.2
"""Memory of a judge's server as a multiple of its weights."""
BILLION = 1e9
ONE_ANSWER = ("score_logit", "yes_no")
"""Methods that take one forward pass per question and criterion."""


@dataclass(frozen=True)
class JudgeCost:
    """What a question costs.

    Attributes:
        name: The judge.
        parameters: Of it.
        tokens: Of a question, pictures included.
        questions: Per edit.
    """

    name: str
    parameters: float
    tokens: int
    questions: int

    @property
    def flops(self) -> float:
        """Operations per edit: two per parameter and token."""
        return 2 * self.parameters * self.tokens * self.questions

    @property
    def bytes(self) -> float:
        """Of its weights, with room to compute."""
        return BYTES * ROOM * self.parameters

    def gpus(self, kind: Kind) -> int:
        """GPUs of a replica."""
        return max(-(-int(self.bytes) // int(kind.memory * BILLION)), 1)


def judge_cost(config: Config) -> JudgeCost | None:
    """The cost of the run's judge; None without one.

    Raises:
        UserError: Its size is not in its name, or its method writes answers of unknown length.
    """
    judge = config.judge
    if judge is None:
        return None
    if judge.method not in ONE_ANSWER:
        raise UserError(
            f"judge.method={judge.method}: the length of its answers is not known, so it cannot be planned; use "
            "--judge none, and add the judge's time to the plan"
        )
    side = round((config.editor.pixels or 1024 * 1024) ** 0.5)
    pictures = 2 * round(side / TOKEN_SIDE) ** 2
    return JudgeCost(judge.name, size_of(judge), pictures + TEXT, len(judge.asked))


def size_of(judge: JudgeConfig) -> float:
    """The number of parameters that a judge's name tells, as 7B in Qwen2.5-VL-7B.

    Raises:
        UserError: It tells none.
    """
    match = re.search(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])", judge.name)
    if match is None:
        raise UserError(
            f"the judge {judge.name!r} has no size in its name, as Qwen2.5-VL-7B has; use --judge none, or set "
            "judge.model to a name with the size"
        )
    return float(match[1]) * BILLION
