"""Several rewards of one edit, mixed by weight; a part that has nothing to say is left out of that edit's mix."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from editr1.judges.base import Judge, JudgeRequest, Score, close


class MixedJudge:
    """Asks every part; a `Score` is the weighted mean of the parts that have a value, with all of them in `parts`.

    The mean is for logs and for the filter of groups. Training normalises each part on its own before mixing
    (`editr1.algorithms.mixing`).

    Args:
        parts: judge and weight of each part, by name.
    """

    def __init__(self, parts: Mapping[str, tuple[Judge, float]]) -> None:
        self.parts = dict(parts)
        self._local = threading.Lock()  # parts in this process are called from one thread at a time

    @property
    def remote(self) -> bool:
        """Whether any part waits for another machine."""
        return any(judge.remote for judge, _ in self.parts.values())

    def close(self) -> None:
        """Withdraw what is asked of servers."""
        for judge, _ in self.parts.values():
            close(judge)

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One mixed score a request; remote parts work while the others compute."""
        with ThreadPoolExecutor(max(len(self.parts), 1)) as pool:
            waiting = {
                name: pool.submit(judge.score, requests) for name, (judge, _) in self.parts.items() if judge.remote
            }
            with self._local:
                local = {name: judge.score(requests) for name, (judge, _) in self.parts.items() if not judge.remote}
            found = {name: waiting[name].result() if name in waiting else local[name] for name in self.parts}
        rows = zip(*found.values(), strict=True)
        return [self._mix(dict(zip(found, row, strict=True))) for _, row in zip(requests, rows, strict=True)]

    def _mix(self, scores: Mapping[str, Score]) -> Score:
        there = {name: score.value for name, score in scores.items() if score.value is not None}
        prompt = " ".join(dict.fromkeys(score.prompt for score in scores.values() if score.prompt))
        tokens = sum(score.tokens for score in scores.values())
        seconds = max((score.seconds for score in scores.values()), default=0.0)
        mixed = Score(None, parts=scores, prompt=prompt, tokens=tokens, seconds=seconds)
        if not there:
            return replace(mixed, reason="; ".join(f"{name}: {score.reason}" for name, score in scores.items()))
        total = sum(self.parts[name][1] for name in there)
        return replace(mixed, value=sum(self.parts[name][1] * value for name, value in there.items()) / total)
