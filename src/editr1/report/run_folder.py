"""A run's folder, read back for the report. Everything but config.yaml may be missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from editr1.algorithms.base import find_algorithms
from editr1.data.pictures import inside
from editr1.errors import UserError, tell
from editr1.evaluation.heldout.rows import EditRow, read_rows
from editr1.training.metrics import in_words, read_metrics
from editr1.training.run_files import AFTER, BEFORE, CONFIG, METRICS, RESULTS, SAMPLES, SESSION


@dataclass(frozen=True)
class BeforeAfter:
    """The same edit, from the same noise, before and after training."""

    before: EditRow
    after: EditRow

    @property
    def change(self) -> float:
        """After less before, of the oracle's score, or of the judge's for items without an oracle."""
        before, after = _score(self.before), _score(self.after)
        assert before is not None and after is not None, "edits without a score are no pair"
        return after - before


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        folder: Place of the run.
        config: Settings as nested mappings.
        metrics: Rows of metrics.jsonl in the order of the steps, one per step.
        oracle: Mean oracle score of the training edits by step, if a demo measured it.
        results: Content of results.json; None without an evaluation.
        pairs: Edits before and after that have a score in both; empty without an evaluation.
        after: Folder of the edits after training, in the run's.
        grids: Pictures of training samples, in the order of the steps.
        session: Content of session.json; empty if the run is older.
    """

    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    oracle: dict[int, float]
    results: dict[str, Any] | None
    pairs: list[BeforeAfter]
    after: str
    grids: list[Path]
    session: dict[str, Any]

    @property
    def algorithm(self) -> tuple[str, Mapping[str, str]]:
        """Title of its algorithm, and of the parts of the loss by their names; DiffusionNFT if it is older than names.

        A user's own algorithm is not imported for this: its run has kept the words.
        """
        name = self.config["algorithm"].get("name", "nft")
        if (kind := find_algorithms().get(name)) is not None:
            return kind.title, kind.parts
        words = self.session.get("algorithm", {})
        return words.get("title", name), words.get("parts", {})

    @property
    def train_seconds(self) -> float:
        """The time that the evaluation measured, else the sum over the steps."""
        if self.results is not None:
            return float(self.results["train_seconds"])
        return sum(sum(row["seconds"].values()) for row in self.metrics)


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        UserError: if it holds no config.yaml.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} holds no run (no config.yaml): give the folder that `editr1 train` or `editr1 demo` wrote"
        )
    path, session = folder / RESULTS, folder / SESSION
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    after = AFTER if results is None else results.get("after", AFTER)
    rows, damaged = read_metrics(folder / METRICS)
    if damaged:
        tell(f"warning: {in_words(folder / METRICS, damaged)} left out")
    return Run(
        folder=folder,
        config=yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")),
        metrics=rows,
        oracle={row["step"]: row["watched"]["oracle"] for row in rows if "oracle" in row.get("watched", {})},
        results=results,
        pairs=[] if results is None else _pairs(folder, after),
        after=after,
        session=json.loads(session.read_text(encoding="utf-8")) if session.exists() else {},
        grids=sorted((folder / SAMPLES).glob("step_*.png")),
    )


def _pairs(folder: Path, name: str) -> list[BeforeAfter]:
    inside(folder, name, str(folder / RESULTS))
    after = {(row.key, row.index): row for row in read_rows(folder / name)}
    pairs = [BeforeAfter(row, after[row.key, row.index]) for row in read_rows(folder / BEFORE)]
    return [pair for pair in pairs if _score(pair.before) is not None and _score(pair.after) is not None]


def _score(row: EditRow) -> float | None:
    return row.oracle["score"] if row.oracle else row.judge
