"""A run's folder while the run goes on: what is new in it is read, what was read before is kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from editr1.config.loading import read_settings
from editr1.errors import UserError, collect, read_json
from editr1.report.records import SamplesRecord, SessionRecord, StepRecord, checked
from editr1.report.run_folder import Run
from editr1.training.alarms import Heard, sounded
from editr1.training.best import Best, read_best
from editr1.training.metrics import row_of
from editr1.training.run_files import AFTER, CHECKPOINTS, CONFIG, METRICS, SAMPLES, SESSION
from editr1.training.step_row import StepRow


class Tail:
    """The rows of a metrics.jsonl that grows. A last line that is not whole yet is read when it is.

    Attributes:
        rows: By step; of two rows of a step the later one counts. A file that is written anew begins anew.
        fault: The first line that is no row, in words; "" if all are.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.rows = file, dict[int, StepRow]()
        self.fault = ""
        self._end, self._last = 0, b""  # of what was read: its length, and its last line

    def read(self) -> bool:
        """Read what is new; whether there was anything.

        Raises:
            UserError: The file cannot be read.
        """
        try:
            new, anew = self._new()
        except OSError as error:
            raise UserError(f"cannot read {self.file}: {error}") from error
        whole = new[: new.rfind(b"\n") + 1]
        if anew:
            self.rows.clear()
            self.fault = ""
        self._end = (0 if anew else self._end) + len(whole)
        lines = whole.splitlines(keepends=True)
        self._last = lines[-1] if lines else b"" if anew else self._last
        faults: list[str] = []
        for line in filter(bytes.strip, lines):
            with collect(faults):
                self._add(line)
        self.fault = self.fault or (faults[0] if faults else "")
        return bool(whole) or anew

    def _add(self, line: bytes) -> None:
        if (row := row_of(line)) is None:
            raise UserError(f"{self.file}: a damaged line is left out")
        self.rows[row["step"]] = checked(StepRecord, row, f"{self.file}: step {row['step']}")

    def _new(self) -> tuple[bytes, bool]:
        """The bytes that were not read yet, and whether these are all of the file, which was written anew."""
        if not self.file.exists():
            return b"", bool(self._end)
        with self.file.open("rb") as file:
            file.seek(self._end - len(self._last))
            content = file.read()
            if content.startswith(self._last):
                return content[len(self._last) :], False
            file.seek(0)
            return file.read(), True


class Followed:
    """A run that is followed.

    Attributes:
        run: What is known of it; its evaluations are not.
        alarms: Those that sounded so far.
        samples: Content of the newest samples/step_<step>.json whose picture is there; None without one.
        best: The best checkpoint; None before an evaluation.
        fault: What could not be read at the last look, in a line; "" if all could.

    Raises:
        UserError: The folder holds no run.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"{folder} holds no run (no config.yaml): give the folder that `editr1 train` or `editr1 demo` writes"
            )
        self.folder, self.fault = folder, ""
        self.alarms: list[Heard] = []
        self.samples: dict[str, Any] | None = None
        self.best: Best | None = None
        self._tail = Tail(folder / METRICS)
        self._before: StepRow | None = None  # the last row at the look before
        self.run = self._read(read_settings(folder / CONFIG))
        self.look()

    def look(self) -> bool:
        """Read what is new; whether anything changed."""
        faults, changes = list[str](), list[bool]()
        for part in (self._rows, self._samples, self._best):
            with collect(faults):
                changes.append(part())
        before, self.fault = self.fault, " ".join([*faults, self._tail.fault]).strip()
        return any(changes) or before != self.fault

    @property
    def age(self) -> float | None:
        """Seconds since the last row was written; None before the first one."""
        try:
            return max(0.0, time.time() - (self.folder / METRICS).stat().st_mtime)
        except OSError:
            return None

    def _rows(self) -> bool:
        if not self._tail.read():
            return False
        config = read_settings(self.folder / CONFIG)  # of a run that goes on, it may be another one
        done = len(self.run.metrics)
        self.run = self._read(config)
        rows = self.run.metrics
        goes_on = done and len(rows) >= done and rows[done - 1] is self._before
        self.alarms = sounded(rows, config["optim"]["grad_clip"], *((self.alarms, done) if goes_on else ()))
        self._before = rows[-1] if rows else None
        return True

    def _samples(self) -> bool:
        for file in sorted((self.folder / SAMPLES).glob("step_*.json"), reverse=True):
            if file.with_suffix(".png").is_file():
                before, self.samples = self.samples, checked(SamplesRecord, read_json(file), file)
                return self.samples != before
        return False

    def _best(self) -> bool:
        before, self.best = self.best, read_best(self.folder / CHECKPOINTS)
        return self.best != before

    def _read(self, config: dict[str, Any]) -> Run:
        session = self.folder / SESSION
        return Run(
            folder=self.folder,
            config=config,
            metrics=[self._tail.rows[step] for step in sorted(self._tail.rows)],
            oracle={},
            results=None,
            pairs=[],
            after=AFTER,
            grids=[],
            session=checked(SessionRecord, read_json(session), session) if session.exists() else {},
        )
