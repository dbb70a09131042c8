"""When a judge agrees with people: the tie rules of the published benchmarks, and what guessing reaches.

A rule turns the judge's score differences into units that are right or wrong: pairs, or whole groups of pairs. A pair
without a score is wrong under every rule, so that all methods are measured on the same pairs.

decided             pairs on which people decided; equal scores are wrong (Edit-R1's study, arXiv 2510.16888)
labelled            all pairs; a tie is right if the scores differ by less than 1e-5 (EditReward-Compass, 2605.13062)
threshold_official  all pairs; scores closer than a threshold are a tie; the threshold is the best one on these pairs.
                    As published (EditReward, 2509.26346): it is raised pair by pair, so equal differences may be split
                    into ties and decisions, which no threshold can do, and "no ties at all" is never tried
threshold_exact     the same, without those two flaws
editscore           equal is wrong; plain mean over the task types, of the dimension "overall" (2509.23909)
tiger_official      groups of 2, 3, 4 edits, right if all pairs are (2509.26346). Its script judges ties of two by the
                    best threshold, decided pairs by order alone, and ranks the later of two equal edits higher
tiger_exact         the same groups; groups of two by `threshold_exact`, and equal scores decide nothing
genai_official      four answers (left, right, both good, both bad); equal scores are right on either tie (GenAI-Bench)
genai_exact         the same; equal scores say "both good" from 0.5 on, "both bad" below
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from editr1.evaluation.agreement.pairs import SIGNS, Pair

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
EQUAL = 1e-5


@dataclass(frozen=True)
class PairScores:
    """P pairs with one judge's scores of the first edits, `a`, and of the second, `b`: [P], NaN for no score."""

    pairs: Sequence[Pair]
    a: Floats
    b: Floats

    @property
    def label(self) -> Ints:
        """People's preference: 1 for a, 0 for a tie, -1 for b; [P]."""
        return np.array([SIGNS[pair.preference] for pair in self.pairs], np.int64)

    @property
    def difference(self) -> Floats:
        """Score of a less that of b, [P]; NaN without both."""
        return self.a - self.b


@dataclass(frozen=True)
class Units:
    """The U units that a rule counts.

    Attributes:
        right: 1 if the judge agrees, else 0; [U].
        pair: index of a pair of the unit, for its task, dimension and group; [U].
        task: the unit's row in tables; [U].
    """

    right: Floats
    pair: Ints
    task: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """One way to count.

    Attributes:
        apply: the units, right or wrong.
        chance: probability that a uniformly random answer is right, by unit; [U].
        note: the rule in words.
        mean_of_types: whether the accuracy is the plain mean over tasks, of the dimension "overall" if there is one.
    """

    apply: Callable[[PairScores], Units]
    chance: Callable[[PairScores], Floats]
    note: str
    mean_of_types: bool = False


def agrees(scores: PairScores) -> Bools:
    """Whether the order of the scores is people's order, [P]; never on ties, equal scores, or without scores."""
    return scores.difference * scores.label > 0


def decided(scores: PairScores) -> Units:
    """People's decisions alone; equal is wrong."""
    chosen = np.flatnonzero(scores.label != 0)
    return _of_pairs(scores, agrees(scores)[chosen], chosen)


def labelled(scores: PairScores) -> Units:
    """Decisions by order, ties by |difference| < 1e-5."""
    tied = (scores.label == 0) & (np.abs(scores.difference) < EQUAL)
    return _of_pairs(scores, agrees(scores) | tied)


def threshold(scores: PairScores, exact: bool) -> Units:
    """Best threshold on these pairs, as published or `exact`."""
    return _of_pairs(scores, best_threshold(scores.difference, scores.label, exact)[0])


def best_threshold(difference: Floats, label: Ints, exact: bool) -> tuple[Bools, float]:
    """Which pairs are right, [P], with the number of ties that is best on them, and the largest difference of a tie.

    Args:
        difference: of the scores, [P]; NaN is wrong.
        label: 1, 0 or -1, [P].
        exact: pairs of equal |difference| become ties together, and no tie at all is tried too (threshold -1).
    """
    scored = np.flatnonzero(~np.isnan(difference))
    order = scored[np.argsort(np.abs(difference[scored]), kind="stable")]
    size = np.abs(difference[order])
    by_order = difference * label > 0
    gain = (label[order] == 0).astype(np.int64) - by_order[order]
    total = np.concatenate([[0], np.cumsum(gain)])  # [K + 1] change by making the first 0..K pairs ties
    ends = np.append(size[1:] > size[:-1], [True] * (len(size) > 0))
    allowed = np.concatenate([[exact or len(size) == 0], ends if exact else np.ones(len(size), bool)])
    ties = int(np.argmax(np.where(allowed, total, -len(label) - 1)))
    right = by_order.copy()
    right[order[:ties]] = label[order[:ties]] == 0
    return right, float(size[ties - 1]) if ties else -1.0


def tiger_official(scores: PairScores) -> Units:
    """The ranking of TIGER's script."""
    two = _groups_of_two(scores)
    difference, label = scores.difference, scores.label
    _, threshold = best_threshold(difference[two], label[two], exact=True)
    with np.errstate(invalid="ignore"):
        tied = (label == 0) & (np.abs(difference) <= max(threshold, 0.0)) & two
    return _of_groups(scores, agrees(scores) | tied | ((difference == 0) & (label < 0)))


def tiger_exact(scores: PairScores) -> Units:
    """Groups of two by label and best threshold, larger ones by strict order of all pairs."""
    two = _groups_of_two(scores)
    right = agrees(scores)
    right[two] = best_threshold(scores.difference[two], scores.label[two], exact=True)[0]
    return _of_groups(scores, right)


def genai_official(scores: PairScores) -> Units:
    """Equal scores are right on "both good" and on "both bad"."""
    return _of_pairs(scores, agrees(scores) | ((scores.label == 0) & (scores.difference == 0)))


def genai_exact(scores: PairScores) -> Units:
    """Equal scores below 0.5 say "both bad"."""
    bad = np.array([pair.both_bad for pair in scores.pairs], bool)
    tied = (scores.label == 0) & (scores.difference == 0) & ((scores.a < 0.5) == bad)
    return _of_pairs(scores, agrees(scores) | tied)


def _of_pairs(scores: PairScores, right: Bools, chosen: Ints | None = None) -> Units:
    pair = np.arange(len(scores.pairs)) if chosen is None else chosen
    return Units(right.astype(np.float64), pair, tuple(scores.pairs[i].task for i in pair))


def _of_groups(scores: PairScores, right: Bools) -> Units:
    groups = _groups(scores.pairs)
    together = np.array([right[rows].all() for rows in groups], np.float64)
    edits = {1: 2, 3: 3, 6: 4}
    tasks = tuple(f"{edits.get(len(rows), '?')} edits" for rows in groups)
    return Units(together, np.array([rows[0] for rows in groups], np.int64), tasks)


def _groups(pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of the pairs of each group, in order of appearance."""
    groups: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        groups.setdefault(pair.group or pair.key, []).append(i)
    return list(groups.values())


def _groups_of_two(scores: PairScores) -> Bools:
    """Which pairs are the only one of their group, [P]."""
    sizes = Counter(pair.group or pair.key for pair in scores.pairs)
    return np.array([sizes[pair.group or pair.key] == 1 for pair in scores.pairs], bool)


def _even(answers: int) -> Callable[[PairScores], Floats]:
    return lambda scores: np.full(len(scores.pairs), 1 / answers)


def _decided_chance(scores: PairScores) -> Floats:
    return np.full(np.count_nonzero(scores.label), 0.5)


def _tiger_chance(scores: PairScores) -> Floats:
    """Four answers on a group of two (good and bad ties are two answers, as in its random row), else two per pair."""
    return np.array([0.25 if len(rows) == 1 else 0.5 ** len(rows) for rows in _groups(scores.pairs)])


RULES: Mapping[str, Rule] = {
    "decided": Rule(decided, _decided_chance, "Pairs on which people decided; equal scores count as wrong."),
    "labelled": Rule(labelled, _even(3), "All pairs; a tie is right where the scores differ by less than 0.00001."),
    "threshold_official": Rule(
        partial(threshold, exact=False),
        _even(3),
        "All pairs; the tie threshold is the best one on these very pairs, as published: too high where differences "
        "repeat.",
    ),
    "threshold_exact": Rule(
        partial(threshold, exact=True), _even(3), "All pairs; the tie threshold is the best one on these very pairs."
    ),
    "editscore": Rule(
        decided,
        _decided_chance,
        "Equal scores count as wrong; plain mean over the task types, of the dimension “overall” where it is there.",
        mean_of_types=True,
    ),
    "tiger_official": Rule(
        tiger_official,
        _tiger_chance,
        "Groups of 2, 3 and 4 edits, right where all pairs are; ties by the threshold that is best on these very "
        "pairs; of equal scores the later edit ranks higher, as in the published script.",
    ),
    "tiger_exact": Rule(
        tiger_exact,
        _tiger_chance,
        "Groups of 2, 3 and 4 edits, right where all pairs are; groups of two by label, with the tie threshold that is "
        "best on these very pairs.",
    ),
    "genai_official": Rule(
        genai_official, _even(4), "All pairs; equal scores are right where people said both good or both bad."
    ),
    "genai_exact": Rule(
        genai_exact, _even(4), "All pairs; equal scores say “both good” from 0.5 on and “both bad” below."
    ),
}
BY_LAYOUT: Mapping[str, tuple[str, ...]] = {
    "jsonl": ("decided", "labelled", "threshold_exact", "threshold_official"),
    "toy": ("decided", "labelled", "threshold_exact", "threshold_official"),
    "editscore": ("editscore", "decided"),
    "tiger": ("tiger_official", "tiger_exact"),
    "genai": ("genai_official", "genai_exact", "decided", "threshold_official", "threshold_exact"),
    "compass": ("labelled", "decided"),
}
"""Rules that are reported for a layout, the layout's own one first."""


def always_tie(rule: Rule, pairs: Sequence[Pair]) -> Units:
    """What equal scores everywhere reach, good ones or bad ones, whichever is better."""
    ones = np.ones(len(pairs))
    tries = [rule.apply(PairScores(pairs, ones * score, ones * score)) for score in (0.0, 1.0)]
    return max(tries, key=lambda units: float(units.right.sum()))


def random_answer(rule: Rule, pairs: Sequence[Pair]) -> Units:
    """The probability of being right for each unit, with random answers: an expected value, nothing is drawn."""
    zeros = np.zeros(len(pairs))
    scores = PairScores(pairs, zeros, zeros)
    units = rule.apply(scores)
    return Units(rule.chance(scores), units.pair, units.task)
