"""What the two orders of a judge's message cost at a server with a prefix cache.

    vllm serve DIR --enable-prompt-tokens-details --block-size 32 ...
    python benchmarks/judge_order.py http://127.0.0.1:8000/v1 MODEL

Groups of 12 edits of toy items are judged by Score Logit, as in a training step, in turn in the paper's order (source,
edit, text) and in the prefix order (instruction, source, edit, question). Every round has other pictures, so no round
profits from the cache of another. Writes key "judge_order" of benchmarks/results.json: tokens of a prompt, the
share of them that the server had in its cache, and seconds in the prefix order / seconds in the paper's.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import results

from editr1.config.rewards import JudgeConfig, Order
from editr1.judges.base import Answer, JudgeRequest
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.remote import OpenAIModel
from editr1.judges.prompts import load_prompt
from editr1.toy.world import ToyDataset

ROUNDS, GROUPS, EDITS = 5, 8, 12
ORDERS: tuple[Order, ...] = ("paper", "prefix")


def groups(number: int) -> list[JudgeRequest]:
    """One step's requests; other numbers give other sources and edits."""
    dataset = ToyDataset("rl", 2 * ROUNDS * GROUPS, seed=0)
    requests = []
    for item in (dataset[number * GROUPS + index] for index in range(GROUPS)):
        for edit in range(EDITS):
            image = item.source.copy()
            image.putpixel((edit, number), (255, 0, edit))
            requests.append(JudgeRequest(item, image))
    return requests


def measure(model: OpenAIModel, order: Order, number: int) -> tuple[float, list[Answer]]:
    """Seconds of a step's judging, and the answers."""
    judge = MLLMJudge(model, load_prompt("brief", order), method="score_logit")
    asks = [ask for request in groups(number) for ask in judge.asks(request)]
    start = time.perf_counter()
    answers = model.answer(asks)
    return time.perf_counter() - start, answers


def main(url: str, name: str) -> None:
    """Measure the server `url` with the model `name`."""
    model = OpenAIModel(JudgeConfig(endpoints=(url,), model=name, in_flight=EDITS, timeout=600))
    measure(model, "paper", 0)  # the server's first requests are slow
    seconds: dict[str, list[float]] = {order: [] for order in ORDERS}
    answers: dict[str, list[Answer]] = {order: [] for order in ORDERS}
    for number in range(1, ROUNDS):
        for turn, order in enumerate(ORDERS if number % 2 else reversed(ORDERS)):
            duration, replies = measure(model, order, 2 * number + turn)
            seconds[order].append(duration)
            answers[order] += replies
    model.close()
    failed = [answer.reason for replies in answers.values() for answer in replies if answer.reason]
    if failed:
        sys.exit(f"{len(failed)} answers failed: {failed[0]}")
    result: dict[str, Any] = {
        order: {
            "prompt_tokens": sum(answer.prompt_tokens for answer in replies) / len(replies),
            "cached_share": sum(answer.cached_tokens for answer in replies)
            / sum(answer.prompt_tokens for answer in replies),
        }
        for order, replies in answers.items()
    }
    pairs = zip(seconds["prefix"], seconds["paper"], strict=True)
    result["prefix_over_paper"] = median(one / other for one, other in pairs)
    results.add("judge_order", {"judge_order": result}, "python benchmarks/judge_order.py URL MODEL")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:3])
