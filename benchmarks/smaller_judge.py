"""A smaller toy judge, for the question whether a better judge makes a better editor (benchmarks/grids/judges.yaml).

    python benchmarks/smaller_judge.py [--out runs/smaller_judge]

It is made by the shipped judge's own training, narrower and shorter: both transformers have 64 channels instead of 160
and 96, and training stops after 1200 steps of 24 edits, while the learning rate still falls, instead of after 6000 of
48. It learns from synthetic edits, then also from edits of the shipped editor, but not from those of an editor that was
trained on its scores. OUT/judge is a Qwen2.5-VL like any other and takes the settings of the toy preset's judge.

Writes benchmarks/smaller_judge.json: both judges beside the oracle on held-out items, which are the pairs of `editr1
judge agree toy` and groups of the shipped editor's edits. A run that was stopped goes on by the same command; to make
the judge again, remove OUT.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import results
import torch

from editr1.config.loading import load_config
from editr1.editors.editor import Editor
from editr1.editors.open import open_config_editor
from editr1.evaluation.agreement.agree import agree
from editr1.evaluation.agreement.toy_pairs import toy_pairs
from editr1.evaluation.paired import bootstrap_ci
from editr1.files import write_file
from editr1.judges.base import Judge
from editr1.judges.models.local import TransformersModel
from editr1.judges.open import open_config_judge
from editr1.toy.assets import locate
from editr1.toy.world import ToyDataset
from editr1.toy_models.samples import make_samples
from editr1.toy_models.train_judge import JUDGE, train_judge
from editr1.toy_models.verify import SEED, SPREAD, MeasuredGroup, correlation, measure

RESULT = Path(__file__).parent / "smaller_judge.json"
OUT = Path("runs/smaller_judge")
SMALLER = replace(JUDGE, width=64, vision_width=64)
STEPS, STOP, LOOK, ALONE, BATCH = 1500, 1200, 150, 700, 24
SAMPLE_ITEMS, PAIRS, GROUPS = 180, 600, 36


def make(out: Path) -> None:
    """Train the judge into `out`/judge."""
    if not (out / "samples" / "base.json").exists():
        make_samples(open_toy_editor(), out / "samples", "base", level="small", seed=0, items=SAMPLE_ITEMS)
    train_judge(
        out,
        level="small",
        seed=0,
        steps=STEPS,
        look=LOOK,
        alone=ALONE,
        samples=out / "samples",
        batch=BATCH,
        size=SMALLER,
        stop=STOP,
    )


def open_toy_editor() -> Editor:
    """The shipped editor, as the toy preset opens it."""
    return open_config_editor(load_config("toy"))


def parameters(folder: Path) -> int:
    """Parameters of a judge."""
    return sum(value.numel() for value in TransformersModel(folder).model.parameters())


def pair_figures(judges: dict[str, Judge], out: Path) -> dict[str, dict[str, Any]]:
    """How often each judge prefers what the oracle prefers, with its interval; ties are left out."""
    found = agree(toy_pairs(PAIRS), judges, out=out)["methods"]
    return {name: {key: found[name][key] for key in ("accuracy", "ci95")} for name in judges}


def order_figures(groups: dict[str, list[MeasuredGroup]]) -> dict[str, Any]:
    """Rank correlation with the oracle within groups: each judge's mean, and the smaller one's less the shipped one's.

    Groups whose oracle scores are nearly equal have no order and are left out.
    """
    order = {
        name: np.array([correlation(each.oracle, each.judge) for each in some if each.oracle.std() > SPREAD])
        for name, some in groups.items()
    }
    each = {name: mean_figures(values) for name, values in order.items()}
    return {"groups": len(order["shipped"]), **each, "difference": mean_figures(order["smaller"] - order["shipped"])}


def mean_figures(values: np.ndarray) -> dict[str, Any]:
    """Mean and its interval over items."""
    return {"mean": float(values.mean()), "ci95": list(bootstrap_ci(values))}


def main() -> int:
    """Make the judge, measure both, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    make(out)
    folders = {"shipped": Path(locate("toy", toy="judge")), "smaller": out / "judge"}
    judges = {name: open_config_judge(load_config("toy", [f"judge.path={path}"])) for name, path in folders.items()}
    editor, items = open_toy_editor(), ToyDataset("heldout", GROUPS, SEED)
    figures = {
        "parameters": {name: parameters(folder) for name, folder in folders.items()},
        "pairs": {"pairs": PAIRS, **pair_figures(judges, out / "agreement")},
        "within_groups": order_figures({name: measure(editor, judge, items) for name, judge in judges.items()}),
    }
    made = results.origin("python benchmarks/smaller_judge.py")
    write_file(RESULT, json.dumps({**figures, "made": made}, indent=1).encode() + b"\n")
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    results.finish(main)
