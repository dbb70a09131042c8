"""From an answer to a score: Score Logit (arXiv 2510.16888, section 3.2), or the number in the text.

Score Logit is the expected score over the judge's answer tokens, not a sampled one: S answers, worst first, with
log-probabilities l_0 .. l_{S-1} at the answer position, give softmax(l) . (0, .., S-1) / (S-1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from editr1.config.rewards import Scale
from editr1.judges.base import Answer, Position, Score

NO_YES = ("no", "yes")
BOUND_MAX = 0.02
"""Largest error of a Score Logit, if a server does not list all score tokens; above it there is no reward."""
MARK = re.compile(r"score\W{0,4}\s*", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?![\w])")


def digits(scale: Scale) -> tuple[str, ...]:
    """The answers of a scale, worst first."""
    return tuple(str(number) for number in range(scale[0], scale[1] + 1))


def score_logit(position: Position, choices: Sequence[str]) -> Score:
    """Expected place of the answer among S choices, divided by the best place; for no, yes this is P(yes).

    A choice that the server does not list has a probability anywhere in [0, e^floor], and so has each spelling of one
    that has several; these add to those that are listed. The value is then the middle of
    the possible range and `bound` half of its width; if it is above `BOUND_MAX`, there is no reward.

    Args:
        position: Log-probabilities at the answer position, up to a common constant.
        choices: S answers, worst first.
    """
    logprobs = [position.logprobs.get(choice) for choice in choices]
    finite = [logprob for logprob in logprobs if logprob is not None]
    if not all(math.isfinite(logprob) for logprob in finite):
        return Score(None, "a logit of a score token is not finite")
    if not finite:
        return Score(None, f"none of the answers {', '.join(choices)} is among the likeliest tokens")
    top = max(finite)
    most = math.exp(min(position.floor - top, 0.0))
    low, high = [], []  # ends of the range of each choice's weight
    for choice, logprob in zip(choices, logprobs, strict=True):
        low.append(0.0 if logprob is None else math.exp(logprob - top))
        high.append(low[-1] + most * position.unlisted.get(choice, logprob is None))
    least, greatest = _mean_range(low, high)
    bound = (greatest - least) / 2
    if bound > BOUND_MAX:
        missing = ", ".join(choice for choice, *ends in zip(choices, low, high, strict=True) if len({*ends}) > 1)
        span = f"{least:.2f} to {greatest:.2f}"
        return Score(None, f"the server did not list {missing}: the score lies anywhere in {span}")
    total = sum(low)
    return Score((least + greatest) / 2, probs=tuple(weight / total for weight in low), bound=bound)


def score_first(answer: Answer, choices: Sequence[str]) -> Score:
    """Score Logit of an answer that is nothing but the score."""
    return score_logit(answer.positions[0], choices) if answer.positions else Score(None, "the answer is empty")


def marked_position(answer: Answer, choices: Sequence[str]) -> Position | None:
    """The first position after the last "Score" that is one of the choices, in an answer with thoughts."""
    text, starts = "", []
    for position in answer.positions:
        starts.append(len(text))
        text += position.token
    marks = list(MARK.finditer(text))
    if not marks:
        return None
    after = (p for start, p in zip(starts, answer.positions, strict=True) if start + len(p.token) > marks[-1].end())
    return next((position for position in after if position.token.strip() in choices), None)


def written_number(text: str, scale: Scale, marked: bool) -> Score:
    """The number in an answer, brought to [0, 1].

    Args:
        text: The answer.
        scale: Lowest and highest number.
        marked: Whether to read after the last "Score" only, as thoughts may hold numbers; otherwise the whole text must
            hold exactly one number.
    """
    if marked:
        marks = list(MARK.finditer(text))
        if not marks:
            return Score(None, "the answer has no line 'Score: N'", text=text)
        numbers = NUMBER.findall(text[marks[-1].end() :])[:1]
    else:
        numbers = NUMBER.findall(text)
    if len(numbers) != 1:
        return Score(None, f"the answer holds {len(numbers)} numbers, not one: {text.strip()[:60]!r}", text=text)
    low, high = scale
    number = float(numbers[0])
    if not low <= number <= high:
        return Score(None, f"the answer {numbers[0][:20]} is not between {low} and {high}", text=text)
    return Score((number - low) / (high - low), text=text)


def _mean_range(low: Sequence[float], high: Sequence[float]) -> tuple[float, float]:
    """Least and greatest mean place in [0, 1], if each place has an unnormalised weight in its own range.

    The mean is least if all places below one have their highest weight and the others their lowest, and greatest the
    other way round: such a ratio rises in every weight above it and falls in every weight below. The places are
    sorted, so S steps find the best split.
    """
    places, best = range(len(low)), len(low) - 1
    ends = []
    for order, extreme in ((places, min), (reversed(places), max)):
        total, moment = math.fsum(low), math.fsum(place * low[place] for place in places)
        means = [moment / (total * best)]
        for place in order:
            total += high[place] - low[place]
            moment += place * (high[place] - low[place])
            means.append(moment / (total * best))
        ends.append(extreme(means))
    return ends[0], ends[1]
