"""Several rewards of one edit, mixed by weight; a part without a score is left out of that edit's mix."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from editr1.config.formula import Formula
from editr1.judges.base import UNASKED, Judge, JudgeRequest, Score, Weights, close, compares, scores_of
from editr1.judges.criteria import CriteriaJudge

THREADS = 64  # calls of remote parts in flight


class MixedJudge:
    """Asks every part; a `Score` is the weighted mean of the parts that have a value, with all of them in `parts`.

    The mean is for logs and for the filter of groups. Training normalises each part on its own before mixing
    (`editr1.algorithms.mixing`). A product is a part too: a formula of parts, which count in it alone. Nothing is asked
    that has no weight for the item's task: it is `UNASKED`.

    Args:
        parts: Judge and weight of each part, by name.
        optional: Names of the parts that may be missing.
        by_task: Weights by name and task, where they differ.
        products: Formula and weight of each product, by name; missing if a part in it is.
        missing: What stands for parts that do not apply to an item, by product and part; others are missing.
    """

    def __init__(
        self,
        parts: Mapping[str, tuple[Judge, float]],
        optional: Collection[str] = (),
        *,
        by_task: Mapping[str, Mapping[str, float]] | None = None,
        products: Mapping[str, tuple[Formula, float]] | None = None,
        missing: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.optional, self.by_task, self.missing = optional, by_task or {}, missing or {}
        self.judges = {name: judge for name, (judge, _) in parts.items()}
        self.products = {name: formula for name, (formula, _) in (products or {}).items()}
        factors = {name for formula in self.products.values() for name in formula.names}
        every = {**parts, **(products or {})}
        self.weights: Mapping[str, float] = {name: weight for name, (_, weight) in every.items() if name not in factors}
        self._criteria = {
            f"{name}.{criterion}": UNASKED
            for name, judge in self.judges.items()
            if isinstance(judge, CriteriaJudge) and judge.tells_criteria
            for criterion in judge.every
        }
        self._local = threading.Lock()  # parts in this process are called from one thread at a time
        self._pool = _threads()

    @property
    def remote(self) -> bool:
        """Whether any part waits for another machine."""
        return any(judge.remote for judge in self.judges.values())

    @property
    def compares(self) -> bool:
        """Whether any part compares the edits of a group."""
        return any(compares(judge) for judge in self.judges.values())

    def close(self) -> None:
        """Withdraw all questions to servers; it can be asked again."""
        old, self._pool = self._pool, _threads()
        old.shutdown(wait=False, cancel_futures=True)
        for judge in self.judges.values():
            close(judge)

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One mixed score per request; remote parts work while the others compute."""
        counted = {task: self._counted(task) for task in {request.sample.task for request in requests}}
        places = {
            name: [place for place, request in enumerate(requests) if self._asks(name, counted[request.sample.task])]
            for name in self.judges
        }
        calls = {
            name: (judge, [requests[place] for place in places[name]], f"the reward {name!r}")
            for name, judge in self.judges.items()
            if places[name]
        }
        pending = {name: self._pool.submit(scores_of, *call) for name, call in calls.items() if call[0].remote}
        with self._local:
            local = {name: scores_of(*call) for name, call in calls.items() if not call[0].remote}
        rows: list[dict[str, Score]] = [dict.fromkeys(self.judges, UNASKED) for _ in requests]
        for name in calls:
            scores = pending[name].result() if name in pending else local[name]
            for place, score in zip(places[name], scores, strict=True):
                rows[place][name] = score
        return [self._mix(row, counted[request.sample.task]) for request, row in zip(requests, rows, strict=True)]

    def _counted(self, task: str) -> dict[str, float]:
        """The parts that count for a task, with their weights."""
        weights = Weights(self.weights, self.by_task)
        return {name: weight for name in self.weights if (weight := weights.of(name, task)) > 0}

    def _asks(self, name: str, counted: Mapping[str, float]) -> bool:
        """Whether a part is needed for those that count."""
        return name in counted or any(name in self.products[each].names for each in counted if each in self.products)

    def _mix(self, scores: Mapping[str, Score], counted: Mapping[str, float]) -> Score:
        products = {
            name: product(formula, scores, self.missing.get(name, {})) if name in counted else UNASKED
            for name, formula in self.products.items()
        }
        parts = {**scores, **products, **self._criteria, **_criteria(scores)}
        values = {name: value for name in counted if (value := parts[name].value) is not None}
        prompt = " ".join(dict.fromkeys(score.prompt for score in scores.values() if score.prompt))
        tokens = sum(score.tokens for score in scores.values())
        seconds = max((score.seconds for score in scores.values()), default=0.0)
        mixed = Score(None, parts=parts, prompt=prompt, tokens=tokens, seconds=seconds)
        if not values:
            reasons = [f"{name}: {parts[name].reason}" for name in counted]
            return replace(mixed, reason="; ".join(reasons) or "no reward has a weight for its task")
        total = sum(counted[name] for name in values)
        return replace(mixed, value=sum(counted[name] * value for name, value in values.items()) / total)


def product(formula: Formula, scores: Mapping[str, Score], missing: Mapping[str, float]) -> Score:
    """The formula of scores; it is missing, with their reasons, if any of them is.

    One that does not apply counts as what `missing` has for it, if that has anything; one that failed never does.
    """
    values = {name: value for name in formula.names if (value := scores[name].value) is not None}
    values |= {name: value for name, value in missing.items() if name not in values and not scores[name].applies}
    if len(values) < len(formula.names):
        reasons = [f"{name}: {scores[name].reason}" for name in formula.names if name not in values]
        return Score(None, "; ".join(reasons))
    return Score(formula.value(values))


def _criteria(scores: Mapping[str, Score]) -> dict[str, Score]:
    """The criteria of parts, as "judge.execution", for reports; why one is missing, its part tells."""
    return {
        f"{name}.{criterion}": UNASKED if each.value is None else each
        for name, score in scores.items()
        for criterion, each in score.parts.items()
    }


def _threads() -> ThreadPoolExecutor:
    """Threads for remote parts; they start when they are needed."""
    return ThreadPoolExecutor(THREADS, "mixed-judge")
