"""Derived masks against the true ones: `python benchmarks/masks.py`, on held-out items of the toy world.

Each toy editor makes groups as a run does (12 edits by 6 steps of dpm2) of `ITEMS` items; from each a mask is derived
and laid over the item's own. IoU is by task type; an item without a derived mask counts 0. "extract" and "background"
change what is around the objects, "style" everything: of these, and of a "compose" of such a part, no mask must be
derived. The threshold is the same for all, and was set on items of the split "rl".

Then the cost: seconds of one thread for a group of 12 edits of 512x512 pixels.

Writes benchmarks/masks.json, and prints the table of docs/preservation.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image as Images
from PIL.Image import Image

from editr1.config.watching import KeptConfig
from editr1.editors.editor import Editor
from editr1.editors.open import open_named_editor
from editr1.preservation.measure import measure_outside
from editr1.preservation.region import derive_mask
from editr1.toy.tasks import TASKS
from editr1.toy.world import ToyDataset, ToyItem

EDITORS = ("toy:qwen-image-edit", "toy:flux-kontext")
ITEMS, EDITS, STEPS = 108, 12, 6
SIDE = 512
RESULTS = Path(__file__).parent / "masks.json"
WHOLE_TASKS = KeptConfig().whole_tasks


def is_local(item: ToyItem) -> bool:
    """Whether only objects change."""
    return not {"all", "background"} & {*item.edit.parts}


def overlap(mask: Image, truth: np.ndarray) -> float:
    """Intersection over union of a mask and the true one, [64, 64]."""
    found, true = np.asarray(mask) > 0, truth > 0
    return float((found & true).sum() / (found | true).sum())


def measure(editor: Editor) -> dict[str, Any]:
    """By task type: items, those with a derived mask, and mean IoU, of local items and of the others."""
    data = ToyDataset("heldout", ITEMS)
    ious: dict[str, list[float | None]] = {task: [] for task in TASKS}
    whole: dict[str, list[bool]] = {task: [] for task in TASKS}
    for index in range(ITEMS):
        item, sample = data.item(index), data[index]
        images = editor.rollout(sample, EDITS, steps=STEPS, seed=index, scheduler="dpm2").images
        mask = derive_mask(sample.source, images)
        if is_local(item):
            ious[sample.task].append(None if isinstance(mask, str) else overlap(mask, item.mask()))
        else:
            whole[sample.task].append(not isinstance(mask, str))
    local = {task: _line(values) for task, values in ious.items() if values}
    return {
        "local": local,
        "mean_iou": round(fmean(line["iou"] for line in local.values()), 3),
        "whole": {task: {"items": len(found), "derived": sum(found)} for task, found in whole.items() if found},
        "whole_derived_with_task": sum(sum(found) for task, found in whole.items() if task not in WHOLE_TASKS),
    }


def _line(values: Sequence[float | None]) -> dict[str, Any]:
    found = [value for value in values if value is not None]
    return {"items": len(values), "derived": len(found), "iou": round(sum(found) / len(values), 3)}


def cost() -> dict[str, float]:
    """Seconds for a group of large edits: to derive its mask, and to measure them and the ceiling."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    source = Images.fromarray(pixels).resize((SIDE, SIDE))
    edit = source.copy()
    edit.paste("red", (100, 100, 250, 300))
    mask = Images.new("L", source.size)
    mask.paste(255, (100, 100, 250, 300))
    measure_outside(source, [edit], mask)  # imports
    start = time.process_time()
    derive_mask(source, [edit] * EDITS)
    middle = time.process_time()
    measure_outside(source, [edit] * EDITS, mask, source)
    return {"derive": round(middle - start, 2), "measure": round(time.process_time() - middle, 2)}


def table(results: dict[str, Any]) -> str:
    """The table of the docs."""
    lines = ["| Task | " + " | ".join(EDITORS) + " |", "| --- |" + " ---: |" * len(EDITORS)]
    editors = [results["editors"][name] for name in EDITORS]
    for task in TASKS:
        cells = [each["local"].get(task) for each in editors]
        if all(cells):
            words = (f"{cell['iou']:.2f} ({cell['derived']} of {cell['items']})" for cell in cells)
            lines.append(f"| {task} | " + " | ".join(words) + " |")
    lines.append("| mean of the local tasks | " + " | ".join(f"**{each['mean_iou']:.2f}**" for each in editors) + " |")
    for task in TASKS:
        cells = [each["whole"].get(task) for each in editors]
        if all(cells):
            words = (f"{cell['derived']} of {cell['items']}" for cell in cells)
            lines.append(f"| {task}, whole picture: derived | " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure both editors and the cost, and write the results."""
    torch.set_num_threads(1)
    editors = {name: measure(open_named_editor(name, None, device=torch.device("cpu"))) for name in EDITORS}
    results = {"items": ITEMS, "edits": EDITS, "editors": editors, f"seconds_per_group_of_{SIDE}": cost()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
