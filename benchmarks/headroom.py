"""How much the toy editor has to gain by choosing among its own edits: `python benchmarks/headroom.py`.

Reinforcement makes the better ones of an editor's edits more likely; it shows it none that it cannot make. So the best
of 12 edits of the untrained editor is what to aim at: by the oracle, which no training may ask, and by the judge that
training does ask. Beside it stands the editor after training: the runs of "nft" of the grid "algorithm", whose
measurements are kept (kept_runs.py), of the first edit of each item; and that edit before training. All of them are of
the same 144 held-out items, made as `editr1 demo` makes them.

Writes benchmarks/headroom.json, and prints the table of docs/bench.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kept_runs
import numpy as np
import results
import torch

from editr1.ablation.grid import read_grid
from editr1.cli.demo import EVAL_STEPS
from editr1.data.seeds import item_seed
from editr1.editors.open import open_named_editor
from editr1.files import write_file
from editr1.judges.base import JudgeRequest
from editr1.judges.open import open_judge, parse_judge
from editr1.toy.oracle import OracleScore, score
from editr1.toy.world import ToyDataset

EDITOR, ITEMS, EDITS, NOISE = "toy:qwen-image-edit", 144, 12, 0
HERE = Path(__file__).parent
RESULTS = HERE / "headroom.json"
COMMAND = "python benchmarks/headroom.py"
FAILED = 0.2
"""`done` below which an edit counts as not done."""


def measure() -> dict[str, np.ndarray]:
    """Of the untrained editor's edits, [items, edits]: the oracle's score and its parts, and the judge's reward."""
    editor = open_named_editor(EDITOR, None, device=torch.device("cpu"))
    judge, data = open_judge(parse_judge("toy")), ToyDataset("heldout", ITEMS)
    scores: list[list[OracleScore]] = []
    rewards: list[list[float]] = []
    for index in range(ITEMS):
        item, sample = data.item(index), data[index]
        images = editor.rollout(sample, EDITS, steps=EVAL_STEPS, seed=item_seed(NOISE, sample.key)).images
        scores.append([score(item, image) for image in images])
        given = judge.score([JudgeRequest(sample, image) for image in images])
        rewards.append([-1.0 if each.value is None else each.value for each in given])
    parts = {name: [[getattr(each, name) for each in row] for row in scores] for name in ("score", "done", "preserved")}
    return {**{name: np.array(values) for name, values in parts.items()}, "judge": np.array(rewards)}


def choose(edits: Mapping[str, np.ndarray], by: str | None) -> dict[str, float]:
    """The means over items of the edit with the highest value of `by`; of all edits without it."""
    if by is None:
        return figures(*(edits[name] for name in ("score", "done", "preserved")))
    best = edits[by].argmax(axis=1)
    return figures(*(edits[name][np.arange(len(best)), best] for name in ("score", "done", "preserved")))


def figures(score_of: np.ndarray, done: np.ndarray, preserved: np.ndarray) -> dict[str, float]:
    """Means, and the share of edits that are not done."""
    means = {"score": score_of, "done": done, "preserved": preserved, "failed": done < FAILED}
    return {name: round(float(values.mean()), 4) for name, values in means.items()}


def kept(grid: str = "algorithm", variant: str = "nft") -> tuple[dict[str, float], list[dict[str, float]]]:
    """The same of the kept start of the runs of a variant, and of each run at the grid's last step."""
    whole = read_grid(HERE / "grids" / f"{grid}.yaml")
    own = whole.model_copy(update={"variants": {variant: whole.variants[variant]}})
    files = {path: path.name.endswith(".start.json") for path, _ in kept_runs.places(own, Path("runs"), kept_runs.KEPT)}
    (start,) = (figures_at(path, 0) for path, starts in files.items() if starts)
    return start, [figures_at(path, whole.steps) for path, starts in files.items() if not starts]


def figures_at(path: Path, step: int) -> dict[str, float]:
    """The same of the measurement after `step` steps in a kept file, whose run may have gone on for another grid."""
    (row,) = (row for row in json.loads(path.read_text())["rows"] if row["step"] == step)
    return figures(*(np.array(row[name]) for name in ("oracle", "done", "preserved")))


def table(found: Mapping[str, Any]) -> str:
    """The table of the docs."""
    runs = found["trained"]
    after = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    rows = {
        "untrained, all edits": found["untrained"],
        f"untrained, best of {EDITS} by the judge": found["best_by_judge"],
        f"untrained, best of {EDITS} by the oracle": found["best_by_oracle"],
        "untrained, first edit": found["untrained_first"],
        f"trained for 10 steps, first edit, mean of {len(runs)} seeds": after,
    }
    lines = ["| Edits | oracle | `done` | `preserved` | not done |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {name} | {row['score']:.3f} | {row['done']:.2f} | {row['preserved']:.2f} | {row['failed']:.0%} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, and write the results."""
    torch.set_num_threads(1)
    edits, (start, runs) = measure(), kept()
    found = {
        "untrained": choose(edits, None),
        "best_by_judge": choose(edits, "judge"),
        "best_by_oracle": choose(edits, "score"),
        "untrained_first": start,
        "trained": runs,
        "made": results.origin(COMMAND),
    }
    write_file(RESULTS, (json.dumps(found, indent=1) + "\n").encode())
    print(table(found))
    return 0


if __name__ == "__main__":
    results.finish(main)
