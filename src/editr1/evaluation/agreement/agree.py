"""`editr1 judge agree`: ask judges for every edit of the pairs, count how often they agree with people.

Scores are appended to `out`/scores.jsonl, one line per edit, so that a stopped run can be resumed. An edit of several
pairs is judged once. An edit without a score is judged again when the run is repeated.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from editr1.errors import UserError
from editr1.evaluation.agreement import statistics
from editr1.evaluation.agreement.pairs import Pair
from editr1.evaluation.agreement.ties import BY_LAYOUT, EQUAL, RULES, PairScores, Rule, always_tie, random_answer
from editr1.evaluation.rank import kendall, spearman
from editr1.files import JsonLines, loader, write_file
from editr1.judges.base import Judge, JudgeRequest, Score, scores_of
from editr1.judges.criteria import CriteriaJudge

SIDES = ("a", "b")
Duration = Annotated[float, Field(ge=0, le=1e9)]
FAILED_RULE = "A pair of which an edit has no score counts as wrong; no score is ever made up."


@dataclass(frozen=True)
class ScoreRecord:
    """One edit's score; its tokens and times are 0 if the score is that of an equal edit of another pair.

    Attributes:
        method: name of the judge.
        pair: key of the pair.
        side: "a" or "b".
        edit: hash of both pictures and the question.
        value: the score; None if there is none.
        reason: why there is none.
        tokens: tokens of the answer.
        seconds: time from question to answer, including the wait for others of the same call.
        wall: the edit's share of the time of its call.
        prompt: version of the judge's prompt.
    """

    method: str
    pair: str
    side: str
    edit: str
    value: Annotated[float, Field(ge=0, le=1)] | None
    reason: str | None
    tokens: Annotated[int, Field(ge=0, le=10**9)]
    seconds: Duration
    wall: Duration
    prompt: str


class Store:
    """The scores in one file: a head with the pairs and judges, then one line per edit; a cut-off last line is dropped.

    Raises:
        UserError: the file holds scores of other pairs, or of a judge of the same name that differs.
    """

    def __init__(self, path: Path, pairs: Sequence[Pair], judges: Mapping[str, Judge]) -> None:
        ids = {name: j.judge_id if isinstance(j, CriteriaJudge) else type(j).__name__ for name, j in judges.items()}
        head = {"pairs": _fingerprint(pairs), "judges": ids}
        remedy = "take another folder, or remove the file to start again"
        self._lines = JsonLines(path, "scores", remedy, head=head, gains="judges", load=loader(ScoreRecord))
        self._lines.replace(map(asdict, self._lines.rows))
        self.by_place: dict[tuple[str, str, str], ScoreRecord] = {}
        self.by_edit: dict[tuple[str, str], ScoreRecord] = {}
        self._know(self._lines.rows)

    def add(self, records: Sequence[ScoreRecord]) -> None:
        """Append scores; they are on the disk when this returns."""
        self._lines.append(map(asdict, records))
        self._know(records)

    def has(self, method: str, pair: Pair) -> bool:
        """Whether both edits of the pair have a score."""
        records = [self.by_place.get((method, pair.key, side)) for side in SIDES]
        return all(one is not None and one.value is not None for one in records)

    def of(self, method: str, pairs: Sequence[Pair]) -> list[tuple[ScoreRecord, ScoreRecord]]:
        """The scores of all pairs, in their order."""
        return [(self.by_place[method, p.key, "a"], self.by_place[method, p.key, "b"]) for p in pairs]

    def _know(self, records: Sequence[ScoreRecord]) -> None:
        self.by_place.update({(one.method, one.pair, one.side): one for one in records})
        self.by_edit.update({(one.method, one.edit): one for one in records if one.value is not None})


def agree(
    pairs: Sequence[Pair],
    judges: Mapping[str, Judge],
    *,
    rule: str | None = None,
    out: Path,
    on_pair: Callable[[], object] = lambda: None,
    chunk: int = 8,
) -> dict[str, Any]:
    """Measure how well judges agree with people; writes agreement.json and scores.jsonl into `out`.

    Args:
        pairs: Pairs of one layout.
        judges: Judges by name of the method.
        rule: "official", "exact", or the name of a tie rule of the layout; None is the official one.
        out: Folder of the results; it is created.
        on_pair: Callback once per pair and judge.
        chunk: Pairs per call of the judge.

    Returns:
        What agreement.json holds.

    Raises:
        UserError: no pairs or judges, an unknown rule, a picture that cannot be read, or `out` holds other scores.
    """
    if not pairs or not judges:
        raise UserError("nothing to measure: give at least one pair and one judge")
    rule_name = pick_rule(rule, pairs[0].layout)
    if len({pair.key for pair in pairs}) < len(pairs):
        raise UserError("two pairs have the same key; keys must be unique")
    store = Store(out / "scores.jsonl", pairs, judges)
    for name, judge in judges.items():
        for start in range(0, len(pairs), chunk):
            some = pairs[start : start + chunk]
            if missing := [pair for pair in some if not store.has(name, pair)]:
                store.add(_ask(name, judge, missing, store))
            for _ in some:
                on_pair()
    result = summarise(pairs, {name: store.of(name, pairs) for name in judges}, rule_name)
    write_file(out / "agreement.json", json.dumps(result, indent=1, allow_nan=False).encode())
    return result


def pick_rule(rule: str | None, layout: str) -> str:
    """The name of the tie rule that `--rule` means for a layout."""
    names = BY_LAYOUT[layout]
    if rule in (None, "official"):
        return names[0]
    if rule == "exact":
        return names[0].replace("_official", "_exact")
    if rule not in names:
        raise UserError(f"--rule {rule}: for this set there are official, exact, {', '.join(names)}")
    return rule


def summarise(
    pairs: Sequence[Pair], records: Mapping[str, Sequence[tuple[ScoreRecord, ScoreRecord]]], rule_name: str
) -> dict[str, Any]:
    """The figures of all methods under one tie rule, with the baselines of guessing and the other rules."""
    rule = RULES[rule_name]
    guesses = {"always_tie": always_tie(rule, pairs), "random": random_answer(rule, pairs)}
    reference = _reference(pairs)
    return {
        "pairs": len(pairs),
        "layout": pairs[0].layout,
        "preferences": {name: sum(p.preference == name for p in pairs) for name in ("a", "b", "tie")},
        "tie_rule": rule_name,
        "tie_rule_note": rule.note,
        "failed_rule": FAILED_RULE,
        "baselines": {name: statistics.accuracy(units, rule, pairs) for name, units in guesses.items()},
        "methods": {name: _method(pairs, scores, rule) for name, scores in records.items()},
        **({"reference": reference} if reference else {}),
    }


def _method(pairs: Sequence[Pair], records: Sequence[tuple[ScoreRecord, ScoreRecord]], rule: Rule) -> dict[str, Any]:
    values = np.array([[math.nan if one.value is None else one.value for one in both] for both in records])
    both_scores = PairScores(pairs, values[:, 0], values[:, 1])
    units, difference, label = rule.apply(both_scores), both_scores.difference, both_scores.label
    scored = ~np.isnan(difference)
    unscored = (both for both in records if any(one.value is None for one in both))
    failures = [next(one.reason or "no reason given" for one in both if one.value is None) for both in unscored]
    others = {name: RULES[name] for name in BY_LAYOUT[pairs[0].layout]}
    return {
        "accuracy": statistics.accuracy(units, rule, pairs),
        "ci95": statistics.bootstrap_interval(units, rule, pairs),
        "tie_rate": float((np.abs(difference[scored]) < EQUAL).mean()) if scored.any() else None,
        "seconds_per_pair": sum(one.seconds for both in records for one in both) / len(pairs),
        "wall_seconds_per_pair": sum(one.wall for both in records for one in both) / len(pairs),
        "tokens_per_pair": sum(one.tokens for both in records for one in both) / len(pairs),
        "spearman": spearman(difference[scored], label[scored].astype(float)),
        "kendall": kendall(difference[scored], label[scored].astype(float)),
        "failed": len(failures),
        "reasons": {reason: failures.count(reason) for reason in sorted(set(failures))},
        "by_task": statistics.by(units, units.task, statistics.headline(units, rule, pairs)),
        "by_dimension": statistics.by_dimension(units, rule, pairs),
        "rules": {name: statistics.accuracy(other.apply(both_scores), other, pairs) for name, other in others.items()},
        "distribution": statistics.distribution(values.ravel()),
        "calibration": statistics.calibration(difference, label),
        "prompt": next((one.prompt for both in records for one in both if one.prompt), ""),
    }


def _reference(pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """Distribution of the reference's own scores, if the pairs have them: over [0, 1], else over their own range."""
    scores = np.array([s for p in pairs for s in (p.score_a, p.score_b) if s is not None], float)
    if not len(scores):
        return None
    unit = bool(scores.min() >= 0 and scores.max() <= 1)
    low, high = (0.0, 1.0) if unit else (float(scores.min()), float(scores.max()))
    return {"distribution": statistics.distribution(scores, low, high), "range": [low, high]}


def _ask(name: str, judge: Judge, pairs: Sequence[Pair], store: Store) -> list[ScoreRecord]:
    """Scores of both edits of some pairs in one call; an edit that another pair has scored is not judged again."""
    places: list[tuple[str, str, str]] = []
    requests: dict[str, JudgeRequest] = {}
    for pair in pairs:
        sample = pair.sample()
        for side, opener in zip(SIDES, (pair.edit_a, pair.edit_b), strict=True):
            request = JudgeRequest(sample, opener())
            edit = _hash(request)
            places.append((pair.key, side, edit))
            if (name, edit) not in store.by_edit:
                requests.setdefault(edit, request)
    started = time.perf_counter()
    scores = scores_of(judge, list(requests.values()), f"the judge {name}") if requests else []
    wall = (time.perf_counter() - started) / max(len(requests), 1)
    first = {edit: (key, side) for key, side, edit in reversed(places)}
    verdicts = zip(requests, scores, strict=True)
    records = {edit: _record((name, *first[edit], edit), score, wall) for edit, score in verdicts}
    copies = [
        replace(records.get(edit) or store.by_edit[name, edit], pair=key, side=side, tokens=0, seconds=0.0, wall=0.0)
        for key, side, edit in places
        if edit not in records or first[edit] != (key, side)
    ]
    return [*records.values(), *copies]


def _record(names: tuple[str, str, str, str], score: Score, wall: float) -> ScoreRecord:
    """The score under its method, pair, side and edit; a value that is no number becomes None."""
    value, reason = score.value, score.reason
    if value is not None and not math.isfinite(value):
        value, reason = None, f"the score is {value}"
    return ScoreRecord(*names, value, reason, score.tokens, score.seconds, wall, score.prompt)


def _hash(request: JudgeRequest) -> str:
    """Equal for equal pictures and questions."""
    digest = hashlib.sha256()
    sample = request.sample
    for image in (sample.source, request.edit, *sample.references):
        digest.update(f"{image.mode}{image.size}".encode() + image.tobytes())
    digest.update(json.dumps([sample.instruction, sample.requirement, sample.task]).encode())
    return digest.hexdigest()[:24]


def _fingerprint(pairs: Sequence[Pair]) -> str:
    """Equal for the same pairs in the same order of edits; pictures are not opened."""
    lines = [[p.key, p.instruction, p.preference, p.task, p.requirement, p.layout] for p in pairs]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:24]
