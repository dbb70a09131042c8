"""A toy editor that keeps less of the picture, made on purpose: supervised finetuning on edits with collateral damage.

    python benchmarks/worsened.py [--editor flux-kontext] [--out runs/worsened]

Pairs are items of the toy world's `sft` split, which reinforcement never draws, with targets in the shares that the
shipped editor was made with: some are not done, some done wrongly. All others are the right edit with one more thing
changed: another object is gone or has another colour, or the background has. The oracle says of each that it is done
and not preserved; where an item allows none (a style is of the whole picture), the right edit stays. The shipped editor
learns them as docs/offline.md says, and its averaged weights are merged as `editr1 export --merge` does: OUT/EDITOR is
a pipeline like any other, and a run that starts from it has no other reference.

Writes benchmarks/worsened.json: the oracle on held-out items before and after, from the same noise. A run that was
stopped goes on by the same command.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import results
import torch

from editr1.cli.demo import EVAL_STEPS, PRESETS
from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.editors.open import open_config_editor
from editr1.evaluation.heldout.measure import EvalSettings, measure_edits, toy_oracle
from editr1.evaluation.heldout.rows import EditRow
from editr1.evaluation.paired import figures
from editr1.export.export import export_run
from editr1.files import write_file
from editr1.judges.base import Unasked
from editr1.toy.corrupt import damage, noisy_target
from editr1.toy.oracle import score
from editr1.toy.scene import Scene, draw, to_image
from editr1.toy.tasks import Rng
from editr1.toy.world import ToyDataset, ToyItem
from editr1.training.open import open_trainer

RESULT = Path(__file__).parent / "worsened.json"
OUT = Path("runs/worsened")
PAIRS, HELD_OUT = 1024, 72
DONE, LOST = 0.95, 0.8  # what a damaged target has at least of `done`, and at most of `preserved`
TRIES = 10
SETTINGS = (
    "judge=null",
    "data.kind=pairs",
    "algorithm={name: sft, timesteps_per_image: 2}",
    "rollout.groups_per_step=8",
    "optim={lr: 1.0e-3, micro_batch: 16}",
    "ema=0.95",
    "steps=80",
    "save_every=20",
    "trackers=[]",
)


def damaged(rng: Rng, item: ToyItem) -> Scene:
    """The right edit with collateral damage; without, where none of `TRIES` leaves the edit as it is."""
    for _ in range(TRIES):
        scene = damage(rng, item.edit.target, item.edit.parts, "small")
        oracle = score(item, to_image(draw(scene)))
        if oracle.done >= DONE and oracle.preserved <= LOST:
            return scene
    return item.edit.target


def write_pairs(folder: Path) -> int:
    """Write the pairs as a folder of `data.kind: pairs`; returns how many targets are damaged."""
    rng, data, lines, spoilt = np.random.default_rng(0), ToyDataset("sft", PAIRS), [], 0
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(PAIRS):
        item, names = data.item(index), {"source": f"{index:04}.png", "target": f"{index:04}-target.png"}
        kind, scene = noisy_target(rng, item, "small")
        if kind in ("right", "damage"):
            scene = damaged(rng, item)
            spoilt += scene != item.edit.target
        for name, shown in zip(names.values(), (item.scene, scene), strict=True):
            to_image(draw(shown)).save(folder / name)
        lines.append(json.dumps({**names, "instruction": item.edit.instruction, "key": item.key}))
    write_file(folder / "data.jsonl", "\n".join([*lines, ""]).encode())
    return spoilt


def measure(config: Config, out: Path) -> list[EditRow]:
    """The oracle's measures of the edits of a run's untrained editor, as the demo makes them."""
    settings = EvalSettings(weights="base", steps=EVAL_STEPS, edits_per_item=1)
    editor, items = open_config_editor(config), ToyDataset("heldout", HELD_OUT)
    with editor.policies.using("reference"):
        return measure_edits(editor, Unasked(), items, out=out, settings=settings, oracle=toy_oracle)


def compare(before: list[EditRow], after: list[EditRow]) -> dict[str, Any]:
    """Means before and after, and the change with its interval, of each measure of the oracle."""
    names = ("score", "done", "preserved")
    first, second = (np.array([[row.oracle[name] for name in names] for row in rows]) for rows in (before, after))
    return {name: figures(first[:, n], second[:, n]) for n, name in enumerate(names)}


def main() -> int:
    """Make the pairs, train, merge, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="qwen-image-edit", choices=[*PRESETS])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, out = arguments.editor, arguments.out
    work = out / f"{name}-work"
    spoilt = write_pairs(work / "pairs")
    places = [f"data.path={work / 'pairs'}", f"out={work / 'run'}", f"memory.cache={work / 'cache'}"]
    open_trainer(load_config(PRESETS[name], [*SETTINGS, *places])).train()
    if not (out / name).exists():
        export_run(work / "run", out / name, merge=True)
    before, after = load_config(PRESETS[name]), load_config(PRESETS[name], [f"editor.path={out / name}"])
    oracle = compare(measure(before, work / "before"), measure(after, work / "after"))
    entry = {"pairs": PAIRS, "damaged": spoilt, "items": HELD_OUT, "oracle": oracle}
    results.add_entry(RESULT, name, entry, f"python benchmarks/worsened.py --editor {name}")
    print(json.dumps(oracle, indent=1))
    return 0


if __name__ == "__main__":
    results.finish(main)
