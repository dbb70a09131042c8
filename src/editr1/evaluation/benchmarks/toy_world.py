"""`editr1 eval toy`: an editor on held-out toy items, by the oracle and by the judge; what `editr1 demo` measures.

The default settings give the demo's rows: 2 edits per item, 10 Euler steps, the noise of seed 0. Best of N keeps the
edit with the highest reward of each item: the judge's gain without training, measured by the oracle too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from editr1.config.data import Level
from editr1.evaluation.benchmarks.edits import EditSettings
from editr1.evaluation.benchmarks.own_data import measure_dataset, record_of
from editr1.evaluation.benchmarks.results import Result
from editr1.evaluation.heldout.measure import toy_oracle
from editr1.judges.open import parse_judge
from editr1.toy.world import ToyDataset
from editr1.training.distributed import ALONE, World


@dataclass(frozen=True, kw_only=True)
class ToySettings:
    """The number of held-out items of a toy world, as many of each task, and of edits per item (without best of N)."""

    items: int = 144
    edits: int = 2
    level: Level = "small"


def evaluate_toy(
    settings: EditSettings,
    toy: ToySettings,
    judge: str,
    out: Path,
    on_items: Callable[[int], None],
    world: World = ALONE,
    features: str | None = None,
) -> Result:
    """Edit and measure; the same call resumes a stopped one. A UserError if OUT holds other edits."""
    dataset, judge_config = ToyDataset("heldout", toy.items, level=toy.level), parse_judge(judge)
    made_with = record_of(settings, judge_config, toy.edits, benchmark="toy", items=toy.items, level=toy.level)
    return measure_dataset(
        dataset,
        settings,
        judge_config,
        made_with,
        out,
        oracle=toy_oracle,
        features=features,
        on_items=on_items,
        world=world,
    )
