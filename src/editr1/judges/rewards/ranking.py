"""A judge that compares the edits of a group in pairs, for models that find it hard to score one edit alone.

Each pair is shown in both orders, which cancels a model's preference for one place. The score of an edit is the mean
probability that it is the better one, over its opponents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from PIL.Image import Image

from editr1.config.rewards import JUDGE_DEFAULTS, SourceSize
from editr1.judges.base import MLLM, Ask, JudgeRequest, ModelJudge, Score, at_edit_size, groups_of
from editr1.judges.prompts import references
from editr1.judges.scoring import score_first

PROMPT = "pairs-1"
OPENING = "Compare two edits of one image. Instruction: {instruction} Requirement: {requirement} Source:"
REFERENCE = "Reference {number}:"
QUESTION = "Which edit does better what the instruction asks for, and keeps the rest? Answer with one digit, 1 or 2."
CHOICES = ("2", "1")  # worst first: the score of a question is the probability that the first edit is better


class RankingJudge(ModelJudge):
    """Scores the edits of a group against each other; requests of one group share source image and instruction.

    A comparison that fails is left out. An edit with fewer than half of its comparisons has no score, and neither has
    one that is alone.

    Args:
        model: The model that compares.
        source_size: See `JudgeConfig`.
    """

    compares = True

    def __init__(self, model: MLLM, source_size: SourceSize = JUDGE_DEFAULTS.source_size) -> None:
        super().__init__(model)
        self.source_size = source_size

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, in their order; all pairs of all groups are asked at once."""
        pairs = [pair for members in groups_of(requests) for pair in combinations(members, 2)]
        orders = [order for one, two in pairs for order in ((one, two), (two, one))]
        shown = at_edit_size(requests) if self.source_size == "edit" else requests
        answers = self.model.answer([_ask(shown[first], shown[second].edit) for first, second in orders])
        chances: list[list[float]] = [[] for _ in requests]
        reasons: list[str] = ["it is alone in its group"] * len(requests)
        tokens, comparisons = [0] * len(requests), [0] * len(requests)
        for (first, second), answer in zip(orders, answers, strict=True):
            first_wins = Score(None, answer.reason) if answer.reason is not None else score_first(answer, CHOICES)
            for index in (first, second):
                comparisons[index] += 1
                tokens[index] += (answer.prompt_tokens + answer.completion_tokens) // 2
                if first_wins.value is None:
                    reasons[index] = first_wins.reason or ""
                else:
                    chances[index].append(first_wins.value if index == first else 1 - first_wins.value)
        return [
            Score(math.fsum(wins) / len(wins), prompt=PROMPT, tokens=tokens[i])
            if wins and 2 * len(wins) >= comparisons[i]
            else Score(None, reasons[i], prompt=PROMPT, tokens=tokens[i])
            for i, wins in enumerate(chances)
        ]


def _ask(request: JudgeRequest, other: Image) -> Ask:
    """Is the request's edit better than the other one?"""
    opening = OPENING.format(instruction=request.sample.instruction, requirement=request.sample.requirement or "None.")
    edits = ("Edit 1:", request.edit, "Edit 2:", other)
    return Ask((opening, request.sample.source, *references(request, REFERENCE), *edits, QUESTION), CHOICES)
