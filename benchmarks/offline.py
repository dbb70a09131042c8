"""What offline training on 200 votes gives: the held-out oracle before and after, with its interval.

    python benchmarks/offline.py [--folder DIR] [--name dpo] [--split heldout] [OVERRIDE ...]

The toy editor edits items of the `rl` split twice, from two seeds of the noise; the oracle votes for the better edit of
each item, and the arena writes its votes (DIR/votes), as it does for people. Ties (a difference below `TIE`) are left
out. Then the editor is trained on these files as benchmarks/offline.yaml says, and measured as `editr1 demo` does:
averaged weights, 144 items, the same noise before and after, paired bootstrap. With --split rl it is measured on other
items of the split that is trained on, as is right while settings are chosen.

Writes benchmarks/offline.json, one entry per --name, with the settings that differ from benchmarks/offline.yaml, and
the command, commit and machine that made it. Of older entries only the commit that added them is known ("added").
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import results
import torch

from editr1.cli.demo import show
from editr1.config.loading import load_config
from editr1.editors.open import open_config_editor, open_editor
from editr1.evaluation.agreement.toy_pairs import TIE
from editr1.evaluation.arena.votes import Votes, read_duels, runs_id
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits, toy_oracle
from editr1.evaluation.heldout.rows import read_rows
from editr1.judges.base import Unasked
from editr1.judges.open import open_judge, parse_judge
from editr1.terminal import open_console
from editr1.toy.assets import locate
from editr1.toy.world import ToyDataset
from editr1.training.datasets import open_dataset
from editr1.training.trainer import Trainer

HERE = Path(__file__).parent
RESULT = HERE / "offline.json"
VOTES, DRAWN = 200, 400  # votes, and items that are edited for them
TUNED, HELD_OUT = 1, 144  # seed of the items of --split rl, and number of items


def vote(folder: Path) -> Path:
    """The folder of votes, which is filled if it is not full."""
    out = folder / "votes"
    runs = [folder / name for name in ("a", "b")]
    editor = open_editor(locate("toy", toy="qwen-image-edit"), pixels=64 * 64)
    items = ToyDataset("rl", DRAWN)
    for seed, run in enumerate(runs):
        settings = EvalSettings(weights="base", steps=6, scheduler="dpm2", edits_per_item=1, noise_seed=seed)
        measure_edits(editor, Unasked(), items, out=run, settings=settings, oracle=toy_oracle)
    scores = [{f"{row.key}/{row.index}": row.oracle["score"] for row in read_rows(run)} for run in runs]
    votes = Votes(out / "votes.jsonl", runs_id(runs[0], runs[1]))
    for duel in read_duels(runs[0], runs[1]):
        a, b = (score[duel.key] for score in scores)
        if len(votes.lines) < VOTES and duel.key not in votes.keys and abs(a - b) >= TIE:
            votes.add(duel, "a" if a > b else "b")
    return out


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--folder", type=Path, default=Path("runs/offline"))
    parser.add_argument("--name", default="dpo")
    parser.add_argument("--split", default="heldout", choices=["heldout", "rl"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    votes, out = arguments.folder / "votes", arguments.folder / f"{arguments.name}-{arguments.split}"
    if not (votes / "votes.jsonl").exists():
        vote(arguments.folder)
    places = [f"data.path={votes}", f"out={out}", f"memory.cache={arguments.folder / 'cache'}"]
    config = load_config(HERE / "offline.yaml", [*places, *arguments.overrides])
    judge = open_judge(parse_judge("toy"))
    trainer = Trainer(config, open_config_editor(config), judge, open_dataset(config.data))
    seed = 0 if arguments.split == "heldout" else TUNED
    shown = show(trainer, ToyDataset(arguments.split, HELD_OUT, seed), None, open_console())
    if arguments.split == "heldout":
        keep(arguments.name, arguments.overrides, shown)


def keep(name: str, overrides: Sequence[str], shown: Mapping[str, Any]) -> None:
    """Write the figures that `show` returned as the entry of this name, and say how they were made."""
    command = shlex.join(["python", "benchmarks/offline.py", "--name", name, *overrides])
    figures = {
        "overrides": list(overrides),
        "items": shown["items"],
        "steps": shown["step"],
        "train_seconds": shown["train_seconds"],
        **{measure: shown[measure] for measure in ("oracle", "judge")},
    }
    results.add_entry(RESULT, name, figures, command)


if __name__ == "__main__":
    main()
