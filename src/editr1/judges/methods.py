"""The methods that get a score out of a multimodal model: which question to ask, and how to read the answer.

score_logit, yes_no: the probabilities of the answers at the first answer position (arXiv 2510.16888, section 3.2);
"yes" and "no" count in every spelling that is one token of the model.
score_sampling: a sampled number. cot_sampling, cot_logit: the model thinks first, then the number or the probabilities
at its place are read. The paper compares all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from editr1.config.rewards import MethodName, Scale
from editr1.judges.base import Answer, Score
from editr1.judges.prompts import Question
from editr1.judges.scoring import NO_YES, digits, marked_position, score_first, score_logit, written_number

SHORT = 8  # tokens of an answer that is one number


@dataclass(frozen=True)
class Method:
    """One way to ask and to read.

    Attributes:
        question: The question of the template.
        sampled: Whether the answer is sampled, so that several may be averaged.
        max_tokens: Longest answer; None for the length that the judge's settings allow (thoughts).
        logits: Whether the log-probabilities of the answers are needed.
        read: Turns answer and scale into a score.
    """

    question: Question
    sampled: bool
    max_tokens: int | None
    logits: bool
    read: Callable[[Answer, Scale], Score]

    @property
    def any_spelling(self) -> bool:
        """Whether the answers are words, which a model may write in several ways."""
        return self.question == "yes_no"

    def choices(self, scale: Scale) -> tuple[str, ...]:
        """The answers whose probabilities are read, worst first."""
        if not self.logits:
            return ()
        return NO_YES if self.question == "yes_no" else digits(scale)


def _score_logit(answer: Answer, scale: Scale) -> Score:
    return score_first(answer, digits(scale))


def _yes_no(answer: Answer, scale: Scale) -> Score:
    return score_first(answer, NO_YES)


def _cot_logit(answer: Answer, scale: Scale) -> Score:
    position = marked_position(answer, digits(scale))
    if position is None:
        return Score(None, "the answer has no line 'Score: N'", text=answer.text)
    return replace(score_logit(position, digits(scale)), text=answer.text)


def _sampling(answer: Answer, scale: Scale) -> Score:
    return written_number(answer.text, scale, marked=False)


def _cot_sampling(answer: Answer, scale: Scale) -> Score:
    return written_number(answer.text, scale, marked=True)


METHODS: dict[MethodName, Method] = {
    "score_logit": Method("score", sampled=False, max_tokens=1, logits=True, read=_score_logit),
    "yes_no": Method("yes_no", sampled=False, max_tokens=1, logits=True, read=_yes_no),
    "score_sampling": Method("score", sampled=True, max_tokens=SHORT, logits=False, read=_sampling),
    "cot_logit": Method("think", sampled=True, max_tokens=None, logits=True, read=_cot_logit),
    "cot_sampling": Method("think", sampled=True, max_tokens=None, logits=False, read=_cot_sampling),
}
