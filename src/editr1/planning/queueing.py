"""Rollout, judge and training of a step as a queue: when is the last edit judged, and who waits for whom?

Workers make their calls one after the other, and ask about the edits of a call as soon as it is made. Questions wait in
one line for the replicas of the judge, each of which answers one after the other. All workers train when the last
answer is there. Events are handled in their order in time; nothing is random.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SLACK = 0.05
"""Share of a step that trainers may wait for the judge."""
PAYS = 1.5
"""How much faster twice the nodes must be to pay."""


@dataclass(frozen=True)
class Timeline:
    """When things happen in a step, in seconds from its start.

    Attributes:
        rollout: The last call is made.
        judged: The last question is answered.
        end: The last worker has trained.
    """

    rollout: float
    judged: float
    end: float

    @property
    def wait(self) -> float:
        """Seconds that all workers wait for the judge."""
        return self.judged - self.rollout


Call = tuple[float, int]
"""Seconds of a call, and questions about its edits."""


def run_step(workers: Sequence[Sequence[Call]], train: float, replicas: int, answer: float) -> Timeline:
    """One step.

    Args:
        workers: Calls of each worker.
        train: Seconds of training after the last answer.
        replicas: Number of judges; without any, edits are judged at once.
        answer: Seconds from one answer of a judge to its next one.
    """
    events: list[Call] = []
    for calls in workers:
        now = 0.0
        for spent, questions in calls:
            now += spent
            events.append((now, questions))
    rollout = max((time for time, _ in events), default=0.0)
    free, judged = [0.0] * replicas, rollout
    for time, questions in sorted(events):
        for _ in range(questions if replicas else 0):
            done = max(heapq.heappop(free), time) + answer
            heapq.heappush(free, done)
            judged = max(judged, done)
    return Timeline(rollout, judged, judged + train)


def replicas_needed(workers: Sequence[Sequence[Call]], train: float, answer: float, slack: float = SLACK) -> int:
    """The fewest judges with which workers wait at most the time of one answer, or a share of the step."""
    questions = sum(asked for calls in workers for _, asked in calls)

    def enough(replicas: int) -> bool:
        step = run_step(workers, train, replicas, answer)
        return step.wait <= max(slack * step.end, answer)

    low, high = 1, max(questions, 1)  # more judges never wait longer
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def stops_paying(seconds: Sequence[tuple[int, float]]) -> int | None:
    """The number of nodes after which twice as many no longer make a step `PAYS` times as fast; None if all pay.

    Args:
        seconds: Nodes, each twice the number before, and the seconds of a step with them.
    """
    for (nodes, before), (_, after) in pairwise(seconds):
        if before / after < PAYS:
            return nodes
    return None
