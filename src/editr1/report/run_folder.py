"""A run's folder, read back for the report. Everything but config.yaml may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from editr1.algorithms.base import find_algorithms
from editr1.config.loading import read_settings
from editr1.data.pictures import inside
from editr1.errors import UserError, read_json, tell
from editr1.evaluation.heldout.rows import EditRow, read_rows
from editr1.evaluation.paired import same_edits
from editr1.report.records import ResultsRecord, SelfCheckRecord, SessionRecord, StepRecord, checked
from editr1.training.best import Best, read_best
from editr1.training.metrics import in_words, read_metrics
from editr1.training.run_files import AFTER, BEFORE, CHECKPOINTS, CONFIG, METRICS, RESULTS, SAMPLES, SELF_CHECK, SESSION


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


class Words(NamedTuple):
    """The title of an algorithm, and those of the parts of its loss by their names."""

    title: str
    parts: Mapping[str, str]


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
        self_check: Content of self_check.json; None without one.
        best: The best checkpoint; None without an evaluation.
    """

    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    oracle: dict[int, float | None]
    results: dict[str, Any] | None
    pairs: list[BeforeAfter]
    after: str
    grids: list[Path]
    session: dict[str, Any]
    self_check: dict[str, Any] | None = None
    best: Best | None = None

    @property
    def algorithm(self) -> Words:
        """Those of its algorithm; of DiffusionNFT if it is older than names.

        A user's own algorithm is not imported for this: its run has kept the words.
        """
        name = self.config["algorithm"].get("name", "nft")
        if (kind := find_algorithms().get(name)) is not None:
            return Words(kind.title, kind.parts)
        words = self.session.get("algorithm") or {}
        return Words(words.get("title", name), words.get("parts", {}))

    @property
    def train_seconds(self) -> float:
        """The time that the evaluation measured, else the sum over the steps."""
        if self.results is not None:
            return float(self.results["train_seconds"])
        return sum(sum(row["seconds"].values()) for row in self.metrics)


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        UserError: if it holds no config.yaml, or a file of it is damaged.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} holds no run (no config.yaml): give the folder that `editr1 train` or `editr1 demo` wrote"
        )
    results = _record(folder / RESULTS, ResultsRecord)
    after = (results or {}).get("after", AFTER)
    rows = _steps(folder / METRICS)
    return Run(
        folder=folder,
        config=read_settings(folder / CONFIG),
        metrics=rows,
        oracle={row["step"]: row["watched"]["oracle"] for row in rows if "oracle" in (row.get("watched") or {})},
        results=results,
        pairs=[] if results is None else _pairs(folder, after),
        after=after,
        session=_record(folder / SESSION, SessionRecord) or {},
        self_check=_record(folder / SELF_CHECK, SelfCheckRecord),
        best=read_best(folder / CHECKPOINTS),
        grids=sorted((folder / SAMPLES).glob("step_*.png")),
    )


def _record(path: Path, kind: type[ResultsRecord | SessionRecord | SelfCheckRecord]) -> dict[str, Any] | None:
    """What a file holds; None if there is no such file."""
    return checked(kind, read_json(path), path) if path.exists() else None


def _steps(path: Path) -> list[dict[str, Any]]:
    """The rows of the steps; a warning tells of lines that are none."""
    rows, damaged = read_metrics(path)
    if damaged:
        tell(f"warning: {in_words(path, damaged)} left out")
    return [checked(StepRecord, row, f"{path}: step {row['step']}") for row in rows]


def _pairs(folder: Path, name: str) -> list[BeforeAfter]:
    """The edits that have a score before and after; a UserError if the two are not of the same edits."""
    inside(folder, name, str(folder / RESULTS))
    before, after = read_rows(folder / BEFORE), {(row.key, row.index): row for row in read_rows(folder / name)}
    if not same_edits(before, [*after.values()]):
        raise UserError(f"{folder}: the edits in {BEFORE} and {name} are not of the same items; put a whole copy back")
    pairs = [BeforeAfter(row, after[row.key, row.index]) for row in before]
    if any(bool(pair.before.oracle) != bool(pair.after.oracle) for pair in pairs):
        raise UserError(f"{folder}: edits in {BEFORE} or {name} lack the oracle's score; put a whole copy back")
    return [pair for pair in pairs if _score(pair.before) is not None and _score(pair.after) is not None]


def _score(row: EditRow) -> float | None:
    return row.oracle["score"] if row.oracle else row.judge
