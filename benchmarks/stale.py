"""What training on stored groups costs in gain, and what it saves: stale and replayed groups against an online run.

    python benchmarks/stale.py [--seeds 3] [--folder runs/stale]

For each seed, the toy preset trains for `STEPS` steps and keeps its groups ("online"). Fresh editors then train by the
same settings on stored groups, a pass over as many of them as the online run made:

- "stale": the untrained editor made them, of the items of the online run. A step makes all of its groups before it
  moves the weights, so they are those of one step that is as large as the whole run; the script makes them as that step
  does and leaves its update out. (optim.lr=0 is refused, and not needed.) A second pass is measured too.
- "replayed": the online run made them, and they are read in its order by an editor of another seed, whose LoRA starts
  elsewhere and whose noise levels differ. With the run's own seed it would repeat the run bit for bit.
- "shuffled": the same in the order that `data.kind: groups` has: late groups may come first.

"stale" is read in the order of the online run and has its seed, so its first step is that of the online run. Averaged
weights are measured as `editr1 demo` does, on the same items from the same noise; intervals and differences are those
of `editr1 ablate`, over seeds and items together.

What remains of a step's seconds is the product of two ratios of metrics.jsonl, each within one run, on one thread: the
share of a step of the online run that is neither rollout nor judge, and what reading adds to a step of the stored run.
So a machine that is busier during one run than during another does not change it.

Writes benchmarks/stale.json after each seed, and prints the table of docs/offline.md. A run that was stopped goes on by
the same command.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import results
import torch

from editr1.ablation.figures import Curve, compare, curve_of
from editr1.ablation.runs import Measured
from editr1.cli.demo import EVAL_STEPS, HELD_OUT
from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.data.samples import GroupSampler
from editr1.editors.open import open_config_editor
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits, toy_oracle
from editr1.files import read_lines, write_file
from editr1.judges.base import Judge
from editr1.judges.open import open_judge, parse_judge
from editr1.toy.world import ToyDataset
from editr1.training.datasets import open_dataset
from editr1.training.log import Stopwatch
from editr1.training.run_files import GROUPS, METRICS
from editr1.training.trainer import Trainer

RESULT = Path(__file__).parent / "stale.json"
STEPS = 10
SMALL: tuple[str, ...] = ()  # settings of all runs, by which a test makes them small
OTHER = 100  # what is added to the seed for an editor of another seed


@dataclass(frozen=True)
class Way:
    """Where a run has its groups from.

    Attributes:
        groups: Run of the same seed whose groups it reads; None for an online run.
        other: Whether the editor is of another seed than that run.
        in_order: Whether the groups are read in the order in which they were made.
        passes: Titles in the table after one pass over them, after two, ...
    """

    groups: str | None
    other: bool
    in_order: bool
    passes: tuple[str, ...]


WAYS = {
    "online": Way(None, False, False, ("online",)),
    "stale": Way("untrained", False, True, ("stale: groups of the untrained editor", "stale, two passes")),
    "replayed": Way("online", True, True, ("replayed: groups of an online run, in its order",)),
    "shuffled": Way("online", True, False, ("replayed, shuffled",)),
}


class InOrder(GroupSampler):
    """Draws items in their order, the same in every epoch."""

    def draw(self, place: int, banned: object = None, count: int | None = None) -> tuple[list[int], int]:
        """As of `GroupSampler`; no item is banned."""
        count = self.groups_per_step if count is None else count
        return [at % self.size for at in range(place, place + count)], place + count


def open_run(config: Config, judge: Judge) -> Trainer:
    """A trainer; of stored groups, `judge` is not asked in training."""
    return Trainer(config, open_config_editor(config), judge, open_dataset(config.data))


def settings_of(seed: int, out: Path) -> list[str]:
    """Settings of an online run that keeps its groups."""
    return [*SMALL, f"seed={seed}", f"out={out}", f"steps={STEPS}", "rollout.save_groups=true", "trackers=[]"]


def make_untrained(seed: int, out: Path, judge: Judge) -> None:
    """Keep the groups of a step as large as an online run, unless that is done."""
    settings = settings_of(seed, out)
    count = STEPS * load_config("toy", settings).rollout.groups_per_step
    if len([*(out / GROUPS).glob("*.safetensors")]) < count:
        trainer = open_run(load_config("toy", [*settings, f"rollout.groups_per_step={count}"]), judge)
        for _ in trainer.collector.collect(trainer.rollout, Stopwatch(), trainer.progress):
            pass  # each is kept as soon as it has its rewards


def open_way(way: Way, seed: int, folder: Path, out: Path, judge: Judge) -> Trainer:
    """The run of a way; `folder` holds those of its seed."""
    settings = settings_of(seed + OTHER * way.other, out)
    if way.groups is None:
        return open_run(load_config("toy", settings), judge)
    stored = ["judge=null", "data.kind=groups", f"data.path={folder / way.groups / GROUPS}"]
    own = [*stored, "rollout.save_groups=false", f"steps={STEPS * len(way.passes)}"]
    trainer = open_run(load_config("toy", [*settings, *own]), judge)
    if way.in_order:
        drawn = trainer.collector.sampler
        trainer.collector.sampler = InOrder(drawn.size, drawn.groups_per_step, drawn.seed)
    return trainer


def measure(trainer: Trainer, judge: Judge, out: Path, step: int) -> Measured:
    """Measure the weights that are active, unless that is done."""
    items = ToyDataset("heldout", HELD_OUT)
    settings = EvalSettings(weights=f"step_{step:06d}", steps=EVAL_STEPS, edits_per_item=1)
    rows = measure_edits(trainer.editor, judge, items, out=out, settings=settings, oracle=toy_oracle)
    return Measured(step, 0, [row.judge for row in rows], [row.oracle["score"] for row in rows])


def train(way: str, seed: int, folder: Path, judge: Judge) -> Curve:
    """Train and measure a run as far as that is not done; its gains. Runs of all seeds have one start."""
    out = folder / str(seed) / way
    trainer = open_way(WAYS[way], seed, folder / str(seed), out, judge)
    with trainer.editor.policies.using("reference"):
        start = measure(trainer, judge, folder / "start", 0)
    rows = []
    for step in range(STEPS, trainer.config.steps + 1, STEPS):
        trainer.train(until=step)
        with trainer.ema.swap(), trainer.editor.policies.using("default"):
            rows.append(measure(trainer, judge, out / "heldout" / str(step), step))
    return curve_of(start, rows)


def share_without(way: str, seed: int, folder: Path, parts: tuple[str, ...]) -> float:
    """The share of a step's seconds that other parts than these take: the median of a run's steps."""
    rows = read_lines(folder / str(seed) / way / METRICS)
    shares = [1 - sum(row["seconds"].get(part, 0) for part in parts) / sum(row["seconds"].values()) for row in rows]
    return median(shares)


def figures(curves: Mapping[str, Mapping[int, Curve]], folder: Path) -> list[dict[str, Any]]:
    """A row of the table for each pass of each way."""
    rows, online = [], curves["online"]
    trained = {seed: share_without("online", seed, folder, ("rollout", "judge")) for seed in online}
    for name, way in WAYS.items():
        shares = [1.0] * len(online)
        if way.groups is not None:
            shares = [trained[seed] / share_without(name, seed, folder, ("read",)) for seed in online]
        for number, title in enumerate(way.passes, start=1):
            at = dict.fromkeys(online, (float(number * STEPS), float(STEPS)))
            gains = {each: compare(curves[name], online, each, at) for each in ("oracle", "judge")}
            rows.append({"way": name, "passes": number, "title": title, **gains, "shares": shares})
    return rows


def table(found: Mapping[str, Any]) -> str:
    """The table of the docs."""
    head = ("Groups", "Oracle", "against online", "Judge", "against online", "Share of a step's seconds")
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in found["ways"]:
        cells = [row["title"]]
        for each in (row["oracle"], row["judge"]):
            cells.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(each["gain"], *each["ci95"]))
            more = "{:+.3f} [{:+.3f}, {:+.3f}]".format(each["more"], *each["more_ci95"])
            cells.append("" if row["way"] == "online" else more)
        cells.append(f"{fmean(row['shares']):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/stale"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder, judge = arguments.folder, open_judge(parse_judge("toy"))
    curves: dict[str, dict[int, Curve]] = {way: {} for way in WAYS}
    for seed in range(arguments.seeds):
        make_untrained(seed, folder / str(seed) / "untrained", judge)
        for way in WAYS:
            curves[way][seed] = train(way, seed, folder, judge)
        found = {"steps": STEPS, "items": HELD_OUT, "seeds": seed + 1, "ways": figures(curves, folder)}
        made = results.origin(f"python benchmarks/stale.py --seeds {seed + 1}")
        write_file(RESULT, json.dumps({**found, "made": made}, indent=1).encode() + b"\n")
        print(table(found))
    return 0


if __name__ == "__main__":
    results.finish(main)
