"""Whether a reward sees what an edit spoils: `python benchmarks/seen_damage.py`, on toy items of the split "rl".

The toy editors make groups as a run does (12 edits by 6 steps of dpm2) of `ITEMS` items whose edit is of objects alone.
Within each group, edits are ranked by a reward and by the oracle, which tells what was done and what was preserved
apart; the mean of Spearman's correlations is given, with a 95% interval (bootstrap over groups). An advantage is of the
order within a group too. Rewards are the shipped judge, and the kinds of `preservation` by whose masks they have. A
group in which a reward is the same for all edits, or missing for one, is left out and counted.

Writes benchmarks/seen_damage.json, and prints the table of docs/preservation.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import results
import torch
from masks import EDITORS, EDITS, STEPS, is_local

from editr1.config.rewards import PreservationConfig
from editr1.editors.editor import Editor
from editr1.editors.open import open_named_editor
from editr1.evaluation.paired import bootstrap_ci
from editr1.evaluation.rank import spearman
from editr1.files import write_file
from editr1.judges.base import Judge, JudgeRequest
from editr1.judges.open import open_judge, open_reward, parse_judge
from editr1.toy.oracle import score
from editr1.toy.world import ToyDataset

ITEMS = 54
COMMAND = "python benchmarks/seen_damage.py"
RESULTS = Path(__file__).parent / "seen_damage.json"
REWARDS = {
    "judge": "the toy judge",
    "edit": "`preservation`, `masks: edit`",
    "group": "`preservation`, `masks: group`",
    "data": "`preservation`, `masks: data`",
}
"""The rewards, with their names in the table."""
TRUTHS = ("preserved", "done")
Correlations = list[float | None]
"""Of each group; None where a reward cannot be ranked."""
Measure = Callable[[Editor], Mapping[str, Mapping[str, Correlations]]]
"""The correlations on an editor's edits, by what is ranked and by truth."""


def open_rewards() -> dict[str, Judge]:
    """The rewards by name."""
    masks = {name: PreservationConfig(masks=name) for name in REWARDS if name != "judge"}  # type: ignore[arg-type]
    measured = {name: open_reward(settings, "cpu", torch.float32) for name, settings in masks.items()}
    return {"judge": open_judge(parse_judge("toy")), **measured}


def measure(editor: Editor, rewards: Mapping[str, Judge]) -> dict[str, dict[str, Correlations]]:
    """The correlations of each reward with each truth."""
    data = ToyDataset("rl", 3 * ITEMS)
    local = [index for index in range(len(data)) if is_local(data.item(index))][:ITEMS]
    found: dict[str, dict[str, Correlations]] = {name: {truth: [] for truth in TRUTHS} for name in rewards}
    for index in local:
        item, sample = data.item(index), data[index]
        images = editor.rollout(sample, EDITS, steps=STEPS, seed=index, scheduler="dpm2").images
        truths = [score(item, image) for image in images]
        for name, reward in rewards.items():
            values = [each.value for each in reward.score([JudgeRequest(sample, image) for image in images])]
            for truth in TRUTHS:
                found[name][truth].append(correlation(values, [getattr(each, truth) for each in truths]))
    return found


def correlation(values: Sequence[float | None], truth: Sequence[float]) -> float | None:
    """Spearman's correlation; None if a value is missing or one side is constant."""
    present = [value for value in values if value is not None]
    return spearman(np.array(present), np.array(truth)) if len(present) == len(truth) else None


def mean_of(correlations: Correlations) -> dict[str, Any]:
    """Their mean with its interval, and of how many groups it is."""
    values = np.array([value for value in correlations if value is not None])
    return {"mean": float(values.mean()), "ci95": list(bootstrap_ci(values)), "groups": len(values)}


def table(found: Mapping[str, Any], head: str = "Reward", rows: Mapping[str, str] = REWARDS) -> str:
    """The table of the docs; `rows` are the names of what was ranked in it, by that in the results."""
    columns = [f"{name.removeprefix('toy:')}, `{truth}`" for name in EDITORS for truth in TRUTHS]
    lines = [f"| {head} | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for row, words in rows.items():
        cells = [cell(found["editors"][name][row][truth]) for name in EDITORS for truth in TRUTHS]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(figures: Mapping[str, Any]) -> str:
    """A mean with its interval and its groups."""
    low, high = figures["ci95"]
    return f"{figures['mean']:+.2f} [{low:+.2f}, {high:+.2f}], {figures['groups']}"


def measured_on_both(measure: Measure, path: Path, items: int, command: str) -> dict[str, Any]:
    """The means of the correlations on both editors, also written to `path`."""
    torch.set_num_threads(1)
    editors = {}
    for name in EDITORS:
        found = measure(open_named_editor(name, None, device=torch.device("cpu")))
        editors[name] = {row: {truth: mean_of(each) for truth, each in truths.items()} for row, truths in found.items()}
    figures = {"items": items, "edits": EDITS, "editors": editors, "made": results.origin(command)}
    write_file(path, (json.dumps(figures, indent=1) + "\n").encode())
    return figures


def main() -> int:
    """Measure both editors, and write the results."""
    print(table(measured_on_both(partial(measure, rewards=open_rewards()), RESULTS, ITEMS, COMMAND)))
    return 0


if __name__ == "__main__":
    results.finish(main)
