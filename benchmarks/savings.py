"""What each saving is worth: gain on items that training never draws, at equal wall clock, on the toy.

    python benchmarks/savings.py train [NAME...] --out FOLDER [--seeds 0,1,2] [--editor qwen-image-edit|flux-kontext]
    python benchmarks/savings.py time [NAME...] --out FOLDER
    python benchmarks/savings.py report --out FOLDER

`train` trains variants of the toy preset (all of `VARIANTS` without a NAME) and measures them after the steps of
`MEASURED`: the oracle's score of edits by the averaged weights, minus that of edits by the untrained editor from the
same noise. Gains by step are the same however busy the machine is: `train` uses one thread, and several processes may
share FOLDER, one run each. What is stopped goes on by the same command. `time` needs a machine that does nothing else:
steps of a variant and of `defaults` take turns. `report` reads both: a variant has made budget / (seconds per step)
steps when the budget is spent, and its gain there is interpolated between two measurements. It writes
benchmarks/savings.json and benchmarks/SAVINGS.md.

Further variants: `--set 'name:optim.lr=0.005 algorithm.kl=0.3'`. To choose among them, `--measure rl` measures on a
part of the rl split that is not trained on: heldout is for the last look, not for tuning.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from editr1.cli.demo import EVAL_STEPS, HELD_OUT, PRESETS
from editr1.config.loading import load_config
from editr1.data.seeds import item_seed
from editr1.editors.editor import Editor
from editr1.errors import UserError
from editr1.files import JsonLines, read_lines, write_file
from editr1.toy.oracle import score
from editr1.toy.world import ToyDataset
from editr1.training.interrupts import Interrupts
from editr1.training.log import StepProgress
from editr1.training.open import open_trainer
from editr1.training.trainer import Trainer

VARIANTS = {
    "defaults": "",
    "others_drawn": "rollout.most_groups=16",
    "others_drawn_released": "rollout.most_groups=16 algorithm.filter=released",
    "scouts_12_to_6": "rollout.group_size=6 rollout.scouts=12 rollout.scout_steps=3",
    "scouts_24_to_6": "rollout.group_size=6 rollout.scouts=24 rollout.scout_steps=2",
    "scouts_24_to_12": "rollout.scouts=24 rollout.scout_steps=2",
    "kl_share_1in4": "algorithm.kl_share=0.25",
    "informative_6of12": "algorithm.informative=0.5",
    "informative_6of12_rescaled": "algorithm.informative=0.5 algorithm.rescaled=true",
    "informative_4of12_rescaled": "algorithm.informative=0.34 algorithm.rescaled=true",
    "stratified": "algorithm.stratified=true",
    "bfloat16": "editor.dtype=bfloat16",
    "bfloat16_autocast": "editor.dtype=bfloat16 adapter.autocast=true",
}
"""Overrides of the toy preset by the variant's name."""

HERE = Path(__file__).parent
MEASURED = (5, 10, 20, 30, 40, 60, 80)  # steps; more than fit into the longest budget
ITEMS = {"heldout": ToyDataset("heldout", HELD_OUT), "rl": ToyDataset("rl", HELD_OUT, seed=1)}  # training has seed 0
BUDGETS = (60, 180, 360)  # seconds
WARM, ROUNDS = 2, 12  # steps; in the first two, the old policy is the trained one
RESAMPLES = 10_000
UNTRAINED, GAINS, SECONDS = "untrained", "gains.jsonl", "seconds.json"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """A measurement: the oracle's scores of all items, one edit each, after `step` steps."""

    step: int
    scores: list[float]
    commit: str


@dataclass(frozen=True)
class Runs:
    """The runs of one editor, measured on one set of items, in a folder."""

    folder: Path
    editor: str
    measure: str

    def place(self, name: str, seed: int) -> Path:
        """Folder of a run."""
        return self.folder / self.editor / self.measure / name / str(seed)

    def gains(self, name: str, overrides: str, seed: int) -> JsonLines[Gain]:
        """Its measurements; a UserError if they are of other overrides."""
        remedy = "choose another name, or another folder"
        path = self.place(name, seed) / GAINS
        return JsonLines(path, "gains", remedy, head={"overrides": overrides}, load=lambda **row: Gain(**row))


def open_run(editor: str, overrides: str, seed: int, out: Path, steps: int) -> Trainer:
    """A trainer of a variant, which goes on if `out` holds its checkpoint."""
    own = (f"seed={seed}", f"out={out}", f"steps={steps}", "save_every=5", "keep=1", "trackers=[]")
    trainer = open_trainer(load_config(PRESETS[editor], [*shlex.split(overrides), *own]))
    trainer.progress = StepProgress(trainer.step, steps, quiet=True)
    return trainer


def measure(editor: Editor, items: ToyDataset) -> list[float]:
    """The oracle's score of one edit per item by the active weights, from noise that is the item's own."""
    scores = []
    for index in range(len(items)):
        item = items.item(index)
        seed = item_seed(0, item.key)
        edit = editor.rollout(item.sample(), 1, steps=EVAL_STEPS, seed=seed, scheduler="euler").images[0]
        scores.append(score(item, edit).score)
    return scores


def train(runs: Runs, name: str, overrides: str, seed: int, steps: int) -> None:
    """Train and measure one run, as far as that is not done."""
    torch.set_num_threads(1)  # what is rounded must not depend on the machine's
    gains = runs.gains(name, overrides, seed)
    done, points = {gain.step for gain in gains.rows}, [*(step for step in MEASURED if step < steps), steps]
    if done >= {*points}:
        return
    trainer, items = open_run(runs.editor, overrides, seed, runs.place(name, seed), steps), ITEMS[runs.measure]
    untrained = runs.gains(UNTRAINED, "", 0)
    if not untrained.rows:
        with trainer.editor.policies.using("reference"):
            untrained.append([asdict(Gain(0, measure(trainer.editor, items), commit()))])
    for step in points:
        if step not in done and step >= trainer.step:
            trainer.train(until=step)
            with trainer.ema.swap(), trainer.editor.policies.using("default"):
                gain = Gain(step, measure(trainer.editor, items), commit())
            gains.append([asdict(gain)])
            say(f"{runs.editor} {name} seed {seed} step {step}: oracle {np.mean(gain.scores):.4f} on {runs.measure}")


def time_steps(editor: str, overrides: str, rounds: int) -> dict[str, Any]:
    """Seconds of steps of a variant and of `defaults`, which take turns: medians, the ratio and its middle half.

    The load of the machine before, which ought to be near 0, is kept beside.
    """
    load = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {"variant": [], "defaults": []}
    with tempfile.TemporaryDirectory() as out:
        ways = {
            way: open_run(editor, overrides if way == "variant" else "", 0, Path(out, way), steps=WARM + rounds)
            for way in seconds
        }
        for _ in range(WARM + rounds):
            for way, trainer in ways.items():
                start = time.perf_counter()
                trainer.train_step(None, Interrupts())
                seconds[way].append(time.perf_counter() - start)
    own, theirs = (seconds[way][WARM:] for way in ("variant", "defaults"))
    ratios = [a / b for a, b in zip(own, theirs, strict=True)]
    middle = {"seconds": median(own), "seconds_of_defaults": median(theirs), "ratio": median(ratios)}
    spread = np.quantile(ratios, [0.25, 0.75]).tolist()
    return {**middle, "spread": spread, "rounds": rounds, "load": load, "overrides": overrides}


def write_seconds(folder: Path, editor: str, name: str, timed: Mapping[str, Any]) -> None:
    """Add what was timed to the folder's file."""
    path = folder / SECONDS
    times = read_json(path)
    times.setdefault(editor, {})[name] = timed
    times["machine"] = machine()
    write_file(path, json.dumps(times, indent=1).encode() + b"\n")


def gain_at(curves: Mapping[int, Mapping[int, Floats]], step: float) -> Floats | None:
    """Gains [seeds, items] after `step` steps, interpolated; None if a seed was not trained that far.

    Args:
        curves: Gains [items] by seed and step, 0 at step 0.
        step: May be between two measurements.
    """
    rows = []
    for curve in curves.values():
        steps = sorted(curve)
        above = next((other for other in steps if other >= step), None)
        if above is None:
            return None
        below = max((other for other in steps if other <= step), default=above)
        share = (step - below) / (above - below) if above > below else 0.0
        rows.append((1 - share) * curve[below] + share * curve[above])
    return np.stack(rows) if rows else None


def interval(values: Floats, seed: int = 0) -> list[float]:
    """95% percentile interval of the mean of values [seeds, items], both resampled with replacement."""
    rng, (seeds, items) = np.random.default_rng(seed), values.shape
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
    of_items = rng.multinomial(items, np.full(items, 1 / items), RESAMPLES)
    means = ((of_seeds @ values) * of_items).sum(axis=1) / (seeds * items)
    return [float(edge) for edge in np.quantile(means, [0.025, 0.975])]


def read_curves(runs: Runs) -> dict[str, dict[int, dict[int, Floats]]]:
    """Gains [items] of all runs, by variant, seed and step."""
    folder = runs.folder / runs.editor / runs.measure
    untrained = np.array(runs.gains(UNTRAINED, "", 0).rows[0].scores)
    curves: dict[str, dict[int, dict[int, Floats]]] = {}
    for path in sorted(folder.glob(f"*/*/{GAINS}")):
        name, seed = path.parts[-3:-1]
        rows = [Gain(**row) for row in read_lines(path)[1:]]
        if name != UNTRAINED and rows:
            curve = {row.step: np.array(row.scores) - untrained for row in rows}
            curves.setdefault(name, {})[int(seed)] = {0: np.zeros_like(untrained), **curve}
    return curves


def compare(
    own: Mapping[int, Mapping[int, Floats]], theirs: Mapping[int, Mapping[int, Floats]], steps: tuple[float, float]
) -> dict[str, Any] | None:
    """Gain of a variant after steps[0] steps, and its difference to `defaults` after steps[1], of the seeds of both."""
    seeds = sorted(own.keys() & theirs.keys())
    gain, base = (
        gain_at({seed: some[seed] for seed in seeds}, step) for some, step in zip((own, theirs), steps, strict=True)
    )
    if gain is None or base is None:
        return None
    more = gain - base
    return {
        "step": steps[0],
        "seeds": seeds,
        "gain": float(gain.mean()),
        "ci95": interval(gain),
        "difference": float(more.mean()),
        "difference_ci95": interval(more),
    }


def summarise(runs: Runs, times: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of every variant: at equal steps, and at equal wall clock if it was timed."""
    curves, found = read_curves(runs), {}
    if "defaults" not in curves:
        raise UserError(f"{runs.folder} holds no run of defaults; `train defaults` makes one")
    usual = median([each["seconds_of_defaults"] for each in times.values()]) if times else None
    for name, own in curves.items():
        head = read_lines(runs.place(name, next(iter(own))) / GAINS)[0]
        steps = sorted(set.intersection(*(set(curve) for curve in own.values())) - {0})
        entry: dict[str, Any] = {"overrides": head["overrides"], "steps": {}, "seconds": {}}
        for step in steps:
            entry["steps"][step] = compare(own, curves["defaults"], (step, step))
        ratio = 1.0 if name == "defaults" else times.get(name, {}).get("ratio")
        if usual is not None and ratio is not None:
            entry |= {"ratio": ratio, "spread": times.get(name, {}).get("spread"), "seconds_per_step": ratio * usual}
            for budget in BUDGETS:
                reached = budget / (ratio * usual), budget / usual
                entry["seconds"][budget] = compare(own, curves["defaults"], reached)
        found[name] = entry
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The variants of one editor and measure as Markdown."""
    heads = [f"gain in {budget // 60} min | more than defaults [95%]" for budget in BUDGETS]
    lines = [f"| variant | settings | seeds | seconds per step / defaults | {' | '.join(heads)} |"]
    lines.append("|" + "---|" * (4 + 2 * len(BUDGETS)))
    for name, entry in found.items():
        seeds = max((len(at["seeds"]) for at in entry["steps"].values() if at), default=0)
        ratio = f"{entry['ratio']:.2f}" if "ratio" in entry else "not timed"
        unknown = "trained too few steps" if "ratio" in entry else ""
        cells = [cell for budget in BUDGETS for cell in _cells(name, entry["seconds"].get(budget), unknown)]
        lines.append(f"| {name} | `{entry['overrides'] or '-'}` | {seeds} | {ratio} | {' | '.join(cells)} |")
    heads = sorted({step for entry in found.values() for step in entry["steps"]})
    lines += ["", "The same after equal steps:", "", f"| variant | {' | '.join(f'step {step}' for step in heads)} |"]
    lines.append("|" + "---|" * (1 + len(heads)))
    for name, entry in found.items():
        lines.append(f"| {name} | {' | '.join(' '.join(_cells(name, entry['steps'].get(step))) for step in heads)} |")
    return lines


def _cells(name: str, at: Mapping[str, Any] | None, unknown: str = "") -> tuple[str, str]:
    """A gain, and how much more than that of `defaults` it is."""
    if at is None:
        return unknown, ""
    low, high = at["difference_ci95"]
    more = "" if name == "defaults" else f"{at['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{at['gain']:+.3f}", more


def report(folder: Path) -> None:
    """Write savings.json and SAVINGS.md of all that the folder holds."""
    times = read_json(folder / SECONDS)
    results: dict[str, Any] = {"machine": times.get("machine"), "commit": commit(), "editors": {}}
    lines = [PREAMBLE.format(machine=times.get("machine") or "not timed yet", commit=results["commit"])]
    for editor in PRESETS:
        for items in ITEMS:
            runs = Runs(folder, editor, items)
            if (runs.place(UNTRAINED, 0) / GAINS).exists():
                found = summarise(runs, times.get(editor, {}))
                results["editors"].setdefault(editor, {})[items] = found
                lines += [f"## {editor}, measured on {len(ITEMS[items])} items of {items}", "", *table(found), ""]
    write_file(HERE / "savings.json", json.dumps(results, indent=1).encode() + b"\n")
    write_file(HERE / "SAVINGS.md", "\n".join(lines).rstrip().encode() + b"\n")


PREAMBLE = """# What each saving is worth

    python benchmarks/savings.py train --out FOLDER
    python benchmarks/savings.py time --out FOLDER
    python benchmarks/savings.py report --out FOLDER

Gain: the oracle's score of edits by the averaged weights minus that of edits by the untrained editor, same items, same
noise. At equal wall clock: after as many steps as fit into the time, by the median seconds of a step. Intervals are 95%
by bootstrap over items and seeds, paired with `defaults`. A variant helps where its interval is above 0; those that do
not help are there too.

Machine: {machine}. Report made at commit {commit}.
"""


def read_json(path: Path) -> dict[str, Any]:
    """Content of a file; nothing if there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def commit() -> str:
    """The commit of this code."""
    call = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return subprocess.run(call, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def machine() -> str:
    """The machine in words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, OMP threads {torch.get_num_threads()}, torch {torch.__version__}"


def say(text: str) -> None:
    """A line, at once."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def chosen(names: Sequence[str], own: Iterable[str]) -> dict[str, str]:
    """Overrides by name: of the named variants, or of all, or of those that `--set` gives."""
    given = dict(text.split(":", 1) for text in own)
    known = {**VARIANTS, **given}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"no variant is called {unknown[0]!r}; there are {', '.join(known)}")
    return {name: known[name] for name in names or given or known}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "time", "report"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="variants")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--editor", choices=PRESETS, default="qwen-image-edit")
    parser.add_argument("--set", action="append", default=[], metavar="NAME:OVERRIDES", help="one more variant")
    parser.add_argument("--measure", choices=ITEMS, default="heldout", help="split of the measured items")
    parser.add_argument("--steps", type=int, default=MEASURED[-1], help="of a run; more than before train it further")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed steps per variant")
    args = parser.parse_args()
    variants = chosen(args.names, args.set)
    if args.what == "report":
        report(args.out)
    for name, overrides in variants.items():
        if args.what == "time":
            timed = time_steps(args.editor, overrides, args.rounds)
            write_seconds(args.out, args.editor, name, timed)
            say(f"{name}: {timed['seconds']:.3f} s per step, {timed['ratio']:.3f} of defaults {timed['spread']}")
    for seed in map(int, args.seeds.split(",")):
        for name, overrides in variants.items():
            if args.what == "train":
                train(Runs(args.out, args.editor, args.measure), name, overrides, seed, args.steps)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"savings.py: {error}")
