"""Whether the structure of an edit of the whole picture says what it keeps: `python benchmarks/seen_structure.py`.

As seen_damage.py, on toy items of the split "rl" whose edit is of the whole picture: the edits of a group are ranked by
`structure` and by the oracle's `preserved` and `done`. For a background, the oracle looks at the objects that must
stay; for a style, at the correlation of grey levels with the right edit.

Writes benchmarks/seen_structure.json, and prints the table of docs/preservation.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import results
import torch
from masks import EDITORS, EDITS, STEPS
from seen_damage import TRUTHS, Correlations, cell, correlation, mean_of

from editr1.editors.editor import Editor
from editr1.editors.open import open_named_editor
from editr1.files import write_file
from editr1.preservation.structure import structure
from editr1.toy.oracle import score
from editr1.toy.world import ToyDataset

ITEMS, DRAWN = 12, 200
TASKS = ("background", "style")
COMMAND = "python benchmarks/seen_structure.py"
RESULTS = Path(__file__).parent / "seen_structure.json"


def measure(editor: Editor, task: str) -> dict[str, Correlations]:
    """The correlation of `structure` with each truth in each group of a task."""
    data = ToyDataset("rl", DRAWN)
    found: dict[str, Correlations] = {truth: [] for truth in TRUTHS}
    for index in [index for index in range(len(data)) if data[index].task == task][:ITEMS]:
        item, sample = data.item(index), data[index]
        images = editor.rollout(sample, EDITS, steps=STEPS, seed=index, scheduler="dpm2").images
        truths = [score(item, image) for image in images]
        values = [structure(sample.source, image) for image in images]
        for truth in TRUTHS:
            found[truth].append(correlation(values, [getattr(each, truth) for each in truths]))
    return found


def table(found: Mapping[str, Any]) -> str:
    """The table of the docs."""
    head = [f"{name.removeprefix('toy:')}, `{truth}`" for name in EDITORS for truth in TRUTHS]
    lines = ["| Task | " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(head)]
    for task in TASKS:
        cells = [cell(found["editors"][name][task][truth]) for name in EDITORS for truth in TRUTHS]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure both editors, and write the results."""
    torch.set_num_threads(1)
    editors: dict[str, Any] = {}
    for name in EDITORS:
        editor = open_named_editor(name, None, device=torch.device("cpu"))
        measured = {task: measure(editor, task) for task in TASKS}
        editors[name] = {
            task: {truth: mean_of(each) for truth, each in truths.items()} for task, truths in measured.items()
        }
    figures = {"items": ITEMS, "edits": EDITS, "editors": editors, "made": results.origin(COMMAND)}
    write_file(RESULTS, (json.dumps(figures, indent=1) + "\n").encode())
    print(table(figures))
    return 0


if __name__ == "__main__":
    results.finish(main)
