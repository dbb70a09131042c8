"""Time to gain: how long our defaults train until they reach what the published recipe reaches in six minutes.

    python benchmarks/gain.py [--train] [--time] [--folder DIR] [--ways recipe ours] [--seeds 0 1 2]

`recipe` is the released way (`recipe.Recipe`) with the paper's constants (the defaults of the settings, docs/recipe.md)
on the toy's editor, judge and data; `ours` is the toy preset. Both share `optim.micro_batch`, which changes speed
alone. The gain of a step is that of the oracle's mean score on held-out items over the untrained editor, measured as
`editr1 demo` does: the averaged weights, the same items and noise for all seeds and steps. No training reads it.

Gains by step are the same however busy the machine is; seconds are not. So there are two phases:

    --train    trains with one thread and measures after each step of `MEASURED`; goes on where it was stopped
    --time     seconds per step of both ways, step by step in turn, for an idle machine

Both write into DIR; without either of them both are made, the timing first. What is there is put together at the end:
the recipe has made as many whole steps as fit into `LIMIT` seconds; ours needs the steps from which on its gain stays
at or above the recipe's gain there. A recipe's gain below `LEAST` is within the noise of the held-out items (it may be
negative): then ours must reach `LEAST`. A seed whose runs never reach it has no ratio, and no mean is given.

Keys of benchmarks/results.json:

    time_to_gain_ratio   "ratio": seconds of ours / recipe, the mean over seeds; "ci95": its interval by Student's t;
                         "seeds": gains, steps and seconds of each; "seconds_per_step": medians, smallest, largest
    time_to_reward       seconds until the mean of five steps' rewards has reached `REWARD`; null: not within the run
    gain_by_step         by way and seed: gain of the held-out oracle with its interval, by step
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import floor, sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import results
import torch
from recipe import Recipe, open_way, seconds_of, take_turns
from scipy.stats import t as student

from editr1.config.loading import load_config
from editr1.config.settings import Config, OptimConfig, RolloutConfig
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits, toy_oracle
from editr1.evaluation.heldout.rows import read_rows
from editr1.evaluation.paired import change, same_edits
from editr1.files import in_turn, locked, read_lines, write_file
from editr1.toy.world import ToyDataset
from editr1.training.run_files import LOCK, METRICS
from editr1.training.trainer import Trainer

WAYS = {"recipe": Recipe, "ours": Trainer}
SEEDS = (0, 1, 2)
LIMIT = 360.0  # seconds that the recipe trains
LEAST = 0.02  # gain that ours must reach at least
REWARD = 0.6
MEASURED = {  # steps; of the recipe, only the last one counts
    "recipe": range(8, 15),
    "ours": (*range(2, 17, 2), 20, 24),
}
ROUNDS = 20  # timed steps
HELD_OUT, EVAL_STEPS = 144, 10  # items and sampler steps, as `editr1 demo`
FOLDER = Path("runs/gain")
TIMING = "timing.json"
Curve = dict[int, dict[str, Any]]
"""By step: {"before", "after", "delta", "ci95"} of the held-out oracle."""


def config_of(way: str, seed: int, out: Path, small: bool = False) -> Config:
    """The run of a way; a `small` one of two edits per step is no measurement."""
    ours = load_config("toy", [f"seed={seed}", f"out={out}", "trackers=[]", "save_every=1"])
    if small:
        return ours.model_copy(update={"rollout": RolloutConfig(groups_per_step=1, group_size=2)})
    if way == "ours":
        return ours
    own = {name: getattr(ours, name) for name in ("editor", "judge", "data", "seed", "out", "trackers", "save_every")}
    return Config(**own, optim=OptimConfig(micro_batch=ours.optim.micro_batch))


def run_folder(folder: Path, way: str, seed: int) -> Path:
    """The folder of a run."""
    return folder / f"{way}-{seed}"


def train(folder: Path, way: str, seed: int, steps: Iterable[int], small: bool = False) -> None:
    """Train a run and measure it after these steps, from where it was left; the untrained editor once per folder.

    Raises:
        UserError: Another process trains it.
    """
    out, items = run_folder(folder, way, seed), 2 if small else HELD_OUT
    with locked(out / LOCK):
        trainer = open_way(WAYS[way], config_of(way, seed, out, small))
        with in_turn(folder / LOCK), trainer.editor.policies.using("reference"):
            measure_weights(trainer, items, folder / "before", "base")
        for number in steps:
            if number >= trainer.step:
                trainer.train(until=number)
                with trainer.ema.swap(), trainer.editor.policies.using("default"):
                    measure_weights(trainer, items, out / "evaluation" / f"step_{number:06d}", f"step_{number:06d}")
                print(f"{way}, seed {seed}, step {number}: {curve_of(folder, out)[number]['delta']:+.4f}", flush=True)


def measure_weights(trainer: Trainer, items: int, out: Path, name: str) -> None:
    """Edit the held-out items with the active weights; what is there is not made again."""
    settings, level = EvalSettings(weights=name, steps=EVAL_STEPS), trainer.config.data.level
    heldout = ToyDataset("heldout", items, level=level)
    measure_edits(trainer.editor, trainer.judge, heldout, out=out, settings=settings, oracle=toy_oracle)


def curve_of(folder: Path, out: Path) -> Curve:
    """The gains of a run at the steps whose measurement is whole."""
    before = read_rows(folder / "before") if (folder / "before").exists() else []
    measured = {int(each.name[5:]): read_rows(each) for each in sorted((out / "evaluation").glob("step_*"))}
    whole = {number: rows for number, rows in measured.items() if same_edits(before, rows)}
    return {number: change(before, rows, seed=0)["oracle"] for number, rows in whole.items()}


def time_ways(rounds: int) -> dict[str, list[float]]:
    """Seconds per step of both ways, which take turns; the first steps, with no old policy of its own, do not count."""
    with tempfile.TemporaryDirectory() as name:
        ways = {way: open_way(kind, config_of(way, 0, Path(name) / way)) for way, kind in WAYS.items()}
        return {way: seconds_of(rows) for way, rows in take_turns(ways, rounds).items()}


def whole_steps(seconds: float, limit: float = LIMIT) -> int:
    """Steps of `seconds` each that fit into `limit`."""
    return floor(limit / seconds)


def reach(curve: Mapping[int, float], goal: float) -> int | None:
    """The first step from which on all gains are at least `goal`; None if the last one is not."""
    reached = None
    for number in sorted(curve, reverse=True):
        if curve[number] < goal:
            break
        reached = number
    return reached


def reach_reward(rewards: Sequence[float], goal: float, window: int = 5) -> int | None:
    """The first step at which the mean of `window` steps' rewards is at least `goal`; None if there is none."""
    ends = range(window, len(rewards) + 1)
    return next((end for end in ends if fmean(rewards[end - window : end]) >= goal), None)


def interval(values: Sequence[float]) -> list[float]:
    """95% interval of the mean of two or more values, by Student's t."""
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / sqrt(len(values))
    return [fmean(values) - half, fmean(values) + half]


def seed_row(recipe: Mapping[int, float], ours: Mapping[int, float], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Gains, steps and seconds of a seed; `seconds` are those of a step of each way.

    Raises:
        SystemExit: The recipe was not measured at its last step.
    """
    last = whole_steps(seconds["recipe"])
    if last not in recipe:
        measured = ", ".join(map(str, sorted(recipe))) or "none"
        raise SystemExit(
            f"the recipe makes {last} steps in {LIMIT:.0f} s here and was measured after {measured}; "
            "remove its runs from the folder and train again (--train)"
        )
    goal = max(recipe[last], LEAST)
    number = reach(ours, goal)
    limit, spent = last * seconds["recipe"], None if number is None else number * seconds["ours"]
    return {
        "recipe_gain": recipe[last],
        "goal": goal,
        "steps": {"recipe": last, "ours": number},
        "seconds": {"recipe": limit, "ours": spent},
        "ratio": None if spent is None else spent / limit,
    }


def put_together(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """The keys of results.json, of a folder in which both phases are whole."""
    timing = json.loads((folder / TIMING).read_text(encoding="utf-8"))["seconds"]
    seconds = {way: median(timing[way]) for way in WAYS}
    curves = {way: {seed: curve_of(folder, run_folder(folder, way, seed)) for seed in seeds} for way in WAYS}
    deltas = {
        way: {seed: {number: each["delta"] for number, each in curve.items()} for seed, curve in runs.items()}
        for way, runs in curves.items()
    }
    rows = {seed: seed_row(deltas["recipe"][seed], deltas["ours"][seed], seconds) for seed in seeds}
    ratios = [row["ratio"] for row in rows.values()]
    whole = None not in ratios
    spread = {way: {"median": seconds[way], "least": min(timing[way]), "most": max(timing[way])} for way in WAYS}
    return {
        "time_to_gain_ratio": {
            "ratio": fmean(ratios) if whole else None,
            "ci95": interval(ratios) if whole and len(ratios) > 1 else None,
            "least": LEAST,
            "seeds": rows,
            "seconds_per_step": spread,
        },
        "time_to_reward": {"reward": REWARD, **{way: reward_seconds(folder, way, seeds, seconds) for way in WAYS}},
        "gain_by_step": curves,
    }


def reward_seconds(folder: Path, way: str, seeds: Sequence[int], seconds: Mapping[str, float]) -> list[float | None]:
    """Seconds until each seed's run reached `REWARD`."""
    runs = [read_lines(run_folder(folder, way, seed) / METRICS) for seed in seeds]
    steps = [reach_reward([row["reward_mean"] for row in rows], REWARD) for rows in runs]
    return [None if number is None else number * seconds[way] for number in steps]


def steps_to_measure(folder: Path, way: str) -> Iterable[int]:
    """Of the recipe the last step that counts, once the timing tells which one it is."""
    if way == "recipe" and (folder / TIMING).exists():
        timing = json.loads((folder / TIMING).read_text(encoding="utf-8"))["seconds"]
        return [whole_steps(median(timing["recipe"]))]
    return MEASURED[way]


def measure(quick: bool = False, folder: Path = FOLDER, phases: Sequence[str] = ("time", "train")) -> dict[str, Any]:
    """Both phases, put together; `quick` makes a small step of ours, and measures it on two items."""
    if quick:
        with tempfile.TemporaryDirectory() as name:
            train(Path(name), "ours", 0, [1], small=True)
            return {"gain_by_step": {"ours": {0: curve_of(Path(name), run_folder(Path(name), "ours", 0))}}}
    run_phases(folder, phases, tuple(WAYS), SEEDS)
    return put_together(folder, SEEDS)


def run_phases(folder: Path, phases: Sequence[str], ways: Sequence[str], seeds: Sequence[int]) -> None:
    """Make the phases that are asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    if "time" in phases:
        figures = {"seconds": time_ways(ROUNDS), "made": results.origin("python benchmarks/gain.py --time")}
        write_file(folder / TIMING, json.dumps(figures, indent=1).encode())
    if "train" in phases:
        with one_thread():
            for seed in seeds:
                for way in ways:
                    train(folder, way, seed, steps_to_measure(folder, way))


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread: sums of several are rounded otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_whole(folder: Path) -> bool:
    """Whether the timing is there, and ours of all seeds is measured to the end, and the recipe at all."""
    curves = {way: [curve_of(folder, run_folder(folder, way, seed)) for seed in SEEDS] for way in WAYS}
    measured = all(curves["recipe"]) and all(MEASURED["ours"][-1] in curve for curve in curves["ours"])
    return measured and (folder / TIMING).exists()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, time, and write what both give together."""
    parser = argparse.ArgumentParser(description="Seconds until our defaults gain what the published recipe gains.")
    parser.add_argument("--train", action="store_true", help="Train and measure held-out items; resumable.")
    parser.add_argument("--time", action="store_true", help="Time the steps of both ways, on an idle machine.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="Folder of the runs.")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="Ways to train.")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="Seeds to train.")
    options = parser.parse_args(arguments)
    asked = [phase for phase in ("time", "train") if getattr(options, phase)]
    run_phases(options.folder, asked or ("time", "train"), options.ways, options.seeds)
    if not is_whole(options.folder):
        print(f"{options.folder} does not hold both phases of all runs yet: nothing is written to results.json")
        return 0
    figures = put_together(options.folder, SEEDS)
    results.add("gain", figures, "python benchmarks/bench.py gain")
    print(json.dumps(figures["time_to_gain_ratio"], indent=1))
    return 0


if __name__ == "__main__":
    results.finish(main)
