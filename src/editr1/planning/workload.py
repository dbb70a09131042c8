"""From a rehearsed step to a whole one: all blocks of the denoiser, and all edits and rows of a process."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from editr1.config.rewards import PreservationConfig
from editr1.config.settings import Config
from editr1.planning.blocks import Blocks, extrapolated
from editr1.planning.rehearsal import Step
from editr1.planning.shadow import Work
from editr1.training.gradient import full_rows, one_by_one
from editr1.training.sharing import share_edits, share_rows, widened

STAGES = ("text", "encode", "denoise", "decode", "train", "update", "rest")


def extrapolate(steps: Sequence[Step], points: Sequence[Blocks], blocks: Blocks) -> Step:
    """The step of all blocks from those at the points of `cuts`."""

    def line(read: Callable[[Step], float]) -> float:
        return extrapolated([read(step) for step in steps], points, blocks)

    def whole(read: Callable[[Step], Mapping[str, int]]) -> dict[str, int]:
        names = dict.fromkeys(name for step in steps for name in read(step))
        return {name: round(line(partial(size, read, name))) for name in names}

    def size(read: Callable[[Step], Mapping[str, int]], name: str, step: Step) -> float:
        return read(step).get(name, 0)

    def work(stage: str) -> Work:
        return Work(
            line(lambda step: step.work[stage].flops),
            line(lambda step: step.work[stage].bytes),
            round(line(lambda step: step.work[stage].calls)),
            line(lambda step: step.work[stage].weights),
            line(lambda step: step.work[stage].tokens),
            round(line(lambda step: step.work[stage].peak)),
        )

    return replace(
        steps[0],
        work={stage: work(stage) for stage in STAGES},
        held=whole(lambda step: step.held),
        group=round(line(lambda step: step.group)),
        parameters=round(line(lambda step: step.parameters)),
        trained=round(line(lambda step: step.trained)),
    )


@dataclass(frozen=True)
class Load:
    """What the busiest process of a run does in a step.

    Attributes:
        calls: Of the pipeline.
        edits: Those that it makes, those that it throws away included.
        largest: Edits of its largest call.
        rows: That it trains on.
        waiting: Groups that wait, at most, until they are trained on, besides the one at hand.
    """

    calls: int
    edits: int
    largest: int
    rows: int
    waiting: int


def calls_of(config: Config, ranks: int) -> list[list[tuple[int, int]]]:
    """The calls of the pipeline that each worker makes in a step: edits that are made, and those that are kept."""
    rollout, workers = config.rollout, ranks // config.parallel.context
    size, sharded = rollout.group_size, config.parallel.shard > 1
    shares = share_edits(rollout.groups_per_step, size, workers, whole=judges_whole_groups(config), equal=sharded)
    return [[(widened(share, size).count, share.count) for share in own] for own in shares]


def judges_whole_groups(config: Config) -> bool:
    """Whether no group may be split: a judge ranks its edits, or a mask is of all of them."""
    masks = [own.masks for own in config.rewards.values() if isinstance(own, PreservationConfig)]
    masks += [] if config.preservation is None else [config.preservation.masks]
    ranks = any(judge.method == "ranking" for judge in config.judges.values())
    return ranks or any(mask in ("group", "either") for mask in masks)


def unit_of(config: Config) -> int:
    """Rows that the loss compares, and that one call must hold: the least `optim.micro_batch`."""
    return config.algorithm.unit(torch.linspace(-1, 1, config.rollout.group_size))


def load_of(config: Config, ranks: int, remote: bool = True) -> Load:
    """The load of the busiest process, if no group is dropped; `remote` if edits go on while the judge computes."""
    calls, rollout = calls_of(config, ranks), config.rollout
    edits = [sum(made for made, _ in own) for own in calls]
    busiest = edits.index(max(edits))
    count = full_rows(config.algorithm, rollout)
    counts = [(index, count, unit_of(config)) for index in range(rollout.groups_per_step)]
    rows = share_rows(counts, len(calls), config.optim.micro_batch if config.parallel.shard > 1 else None)
    return Load(
        calls=len(calls[busiest]),
        edits=edits[busiest],
        largest=max(made for own in calls for made, _ in own),
        rows=max(sum(share.stop - share.start for share in own) for own in rows),
        waiting=len(calls[busiest]) - 1 if remote or not one_by_one(config.algorithm, rollout, ranks) else 0,
    )


def times(load: Load, step: Step, rehearsed: int) -> dict[str, float]:
    """How often a process does what was rehearsed, by stage; `rehearsed` is the size of the group of the rehearsal."""
    edits = load.edits / rehearsed
    rows = load.rows / step.rows["train"]
    calls = dict.fromkeys(("text", "encode", "rest"), float(load.calls))
    return {**calls, "denoise": edits, "decode": edits, "train": rows, "update": 1.0}


def peaks(step: Step, load: Load) -> dict[str, int]:
    """Bytes of memory at most in each stage."""
    always = sum(step.held.values()) + load.waiting * step.group
    return {stage: always + step.work[stage].peak + step.layers.get(stage, 0) for stage in STAGES}


@dataclass(frozen=True)
class Pace:
    """How fast a device computes.

    Attributes:
        flops: Operations of matrix products and the like per second.
        bytes: That other operations read and write per second.
        call: Seconds that each operation takes besides.
        host: Bytes per second from main memory.
        weights: Bytes of weights per second from those that share them.
        tokens: Bytes of tokens per second from those that share them.
    """

    flops: float
    bytes: float = math.inf
    call: float = 0.0
    host: float = math.inf
    weights: float = math.inf
    tokens: float = math.inf

    def seconds(self, work: Work) -> float:
        """Of a part of a step: weights arrive while others compute, tokens are waited for."""
        computing = work.flops / self.flops + work.bytes / self.bytes + work.calls * self.call
        return max(computing, work.weights / self.weights) + work.tokens / self.tokens


def seconds(step: Step, load: Load, rehearsed: int, pace: Pace, cached: bool) -> dict[str, float]:
    """Seconds of each stage of a step; with a full cache, only the decoder of all encoders and decoders computes."""
    often = times(load, step, rehearsed)
    spent = {stage: often[stage] * pace.seconds(step.work[stage]) for stage in STAGES}
    if cached:
        return {**spent, "text": 0.0, "encode": 0.0}
    return {**spent, "text": spent["text"] + load.calls * step.host / pace.host}
