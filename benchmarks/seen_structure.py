"""Whether the structure of an edit of the whole picture says what it keeps: `python benchmarks/seen_structure.py`.

As seen_damage.py, on toy items of the split "rl" whose edit is of the whole picture: the edits of a group are ranked by
`structure` and by the oracle's `preserved` and `done`. For a background, the oracle looks at the objects that must
stay; for a style, at the correlation of grey levels with the right edit.

Writes benchmarks/seen_structure.json, and prints the table of docs/preservation.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import results
import seen_damage
from masks import EDITS, STEPS
from seen_damage import TRUTHS, Correlations, correlation

from editr1.editors.editor import Editor
from editr1.preservation.structure import structure
from editr1.toy.oracle import score
from editr1.toy.world import ToyDataset

ITEMS, DRAWN = 12, 200
TASKS = ("background", "style")
COMMAND = "python benchmarks/seen_structure.py"
RESULTS = Path(__file__).parent / "seen_structure.json"


def measure(editor: Editor) -> dict[str, dict[str, Correlations]]:
    """The correlations of `structure` with each truth, by task."""
    return {task: measure_task(editor, task) for task in TASKS}


def measure_task(editor: Editor, task: str) -> dict[str, Correlations]:
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
    return seen_damage.table(found, "Task", {task: task for task in TASKS})


def main() -> int:
    """Measure both editors, and write the results."""
    print(table(seen_damage.measured_on_both(measure, RESULTS, ITEMS, COMMAND)))
    return 0


if __name__ == "__main__":
    results.finish(main)
