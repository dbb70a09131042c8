"""What a run computes in its steps that its plan does not count, in words: a line for each such setting."""

from __future__ import annotations

from collections.abc import Iterator

from editr1.config.rewards import JudgeConfig, JudgeRewardConfig, MeasuredConfig, ProductConfig
from editr1.config.settings import Config
from editr1.errors import UserError
from editr1.planning.forecast import Place
from editr1.planning.judging import BILLION, JudgeCost, size_of
from editr1.training.gradient import one_by_one

MODEL = "time and memory of a model in each trainer's process"
COSTS = {
    "preservation": "its time on the CPU",
    "ocr": "its time on the CPU",
    "clip_image": MODEL,
    "clip_direction": MODEL,
    "editscore": MODEL,
    "function": "what your code takes",
    "http": "waiting for its service",
}
"""What a reward takes, by its kind."""


def uncounted(config: Config, place: Place, ranks: int) -> list[str]:
    """What the plan leaves out of the run's own settings; nothing of what it leaves out of every run.

    Args:
        config: The run.
        place: Where the judge is planned.
        ranks: Processes of the trainers.
    """
    return [*_rewards(config, place), *_measures(config), *_simplified(config, place, ranks)]


def _rewards(config: Config, place: Place) -> Iterator[str]:
    if config.judge is not None and place == "none":
        yield f"judge {config.judge.name}: left out by --judge none"
    for name, own in config.rewards.items():
        if not isinstance(own, ProductConfig):  # of rewards that are there
            yield f"rewards.{name} ({own.kind}): {_cost(own, config)}"


def _measures(config: Config) -> Iterator[str]:
    if config.watch is not None:
        yield f"watch.judge, for one of {config.watch.every} edits: {_second(config.watch.judge, config)}"
    if config.preservation is not None:
        yield f"preservation: {'its time on the CPU, and in the loss' if config.preservation.trains else COSTS['ocr']}"
        if config.preservation.features is not None:
            yield f"preservation.features: {MODEL}"


def _simplified(config: Config, place: Place, ranks: int) -> Iterator[str]:
    if config.judge is not None and place != "none" and config.judge.source_size == "original":
        yield "judge.source_size=original: the judge's sources are counted at the size of the edit"
    if place == "elsewhere" and one_by_one(config.algorithm, config.rollout, ranks):
        yield (
            "algorithm.std=group: one process trains on a group while later ones are judged, which the plan adds up; a "
            "step may take less, by the wait at most"
        )


def _cost(own: MeasuredConfig, config: Config) -> str:
    return _second(own.judge, config) if isinstance(own, JudgeRewardConfig) else COSTS[own.kind]


def _second(judge: JudgeConfig, config: Config) -> str:
    """What a judge besides `judge` takes."""
    if judge.endpoints:
        return f"{judge.name} on GPUs of its own, and waiting for it"
    if config.judge is not None and judge.path == config.judge.path:
        return f"time of {judge.name}, which `judge` asks too"
    try:
        memory = f"about {JudgeCost(judge.name, size_of(judge), 0, 0).bytes / BILLION:.1f} GB and the time"
    except UserError:  # its name tells no size
        memory = "memory and time"
    return f"{memory} of {judge.name} in each trainer's process"
