"""Several rewards of one edit, mixed by weight; a part without a score is left out of that edit's mix."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from editr1.judges.base import Judge, JudgeRequest, Score, close, compares, scores_of

THREADS = 64  # calls of remote parts in flight


class MixedJudge:
    """Asks every part; a `Score` is the weighted mean of the parts that have a value, with all of them in `parts`.

    The mean is for logs and for the filter of groups. Training normalises each part on its own before mixing
    (`editr1.algorithms.mixing`).

    Args:
        parts: Judge and weight of each part, by name.
        optional: Names of the parts that may be missing.
    """

    def __init__(self, parts: Mapping[str, tuple[Judge, float]], optional: Collection[str] = ()) -> None:
        self.optional = optional
        self.judges = {name: judge for name, (judge, _) in parts.items()}
        self.weights: Mapping[str, float] = {name: weight for name, (_, weight) in parts.items()}
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
        calls = {name: (judge, requests, f"the reward {name!r}") for name, judge in self.judges.items()}
        pending = {name: self._pool.submit(scores_of, *call) for name, call in calls.items() if call[0].remote}
        with self._local:
            local = {name: scores_of(*call) for name, call in calls.items() if not call[0].remote}
        scores = {name: pending[name].result() if name in pending else local[name] for name in self.judges}
        rows = zip(*scores.values(), strict=True)
        return [self._mix(dict(zip(scores, row, strict=True))) for _, row in zip(requests, rows, strict=True)]

    def _mix(self, scores: Mapping[str, Score]) -> Score:
        values = {name: score.value for name, score in scores.items() if score.value is not None}
        prompt = " ".join(dict.fromkeys(score.prompt for score in scores.values() if score.prompt))
        tokens = sum(score.tokens for score in scores.values())
        seconds = max((score.seconds for score in scores.values()), default=0.0)
        mixed = Score(None, parts=scores, prompt=prompt, tokens=tokens, seconds=seconds)
        if not values:
            return replace(mixed, reason="; ".join(f"{name}: {score.reason}" for name, score in scores.items()))
        total = sum(self.weights[name] for name in values)
        return replace(mixed, value=sum(self.weights[name] * value for name, value in values.items()) / total)


def _threads() -> ThreadPoolExecutor:
    """Threads for remote parts; they start when they are needed."""
    return ThreadPoolExecutor(THREADS, "mixed-judge")
