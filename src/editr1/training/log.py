"""Where the row of a step goes: metrics.jsonl, TensorBoard, the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from editr1.files import JsonLines
from editr1.training.run_files import BOARD, METRICS
from editr1.training.step_row import StepRow


class Stopwatch:
    """Seconds spent in the named parts of a step."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time of the block toward `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """The parts, "rest" and their sum "total"."""
        total = time.perf_counter() - self._start
        return {**self.parts, "rest": total - sum(self.parts.values()), "total": total}


class RunLog:
    """Writes rows to `out`: metrics.jsonl, one line a step, on the disk when `write` returns, and tb/ for TensorBoard.

    Args:
        out: folder of the run.
        step: steps that the run has done; rows past it (of a run that was killed after its last checkpoint) are cut.
    """

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, which `editr1 --help` need not wait for

        self.path = out / METRICS
        self._lines = JsonLines(self.path, "rows of steps", "take another folder", load=dict[str, Any], allow_nan=True)
        self._lines.replace(row for row in self._lines.rows if row["step"] <= step)
        self._board = SummaryWriter(str(out / BOARD), purge_step=step + 1)

    def write(self, row: StepRow) -> None:
        """Append one row.

        Raises:
            UserError: the disk does not take it.
        """
        self._lines.append([row])
        for name, value in _flat(row):
            self._board.add_scalar(name, value, row["step"])
        self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._board.close()


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """("reward_by_task/add", 0.5), ... for every number of a row."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield prefix + name, value


def _missing(row: StepRow) -> str:
    """The rewards that edits lack, each with the number of these edits; "" if there are none."""
    counts = {"reward": row.get("unscored", 0), **row.get("parts_unscored", {})}
    words = [f"{name} for {count} edits" for name, count in counts.items() if count]
    return f", no {', no '.join(words)}" if words else ""


class StepProgress:
    """A bar with reward, groups kept, images a second and time left; one line a step where there is no terminal."""

    def __init__(self, done: int, total: int) -> None:
        self.console = Console(stderr=True)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[state]}"))
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal
        )
        self._task = self._bar.add_task("", completed=done, total=total, state="")
        self._total = total

    def __enter__(self) -> StepProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, row: StepRow) -> None:
        """Show the row of a step that is done."""
        reward = "none" if row["reward_mean"] is None else f"{row['reward_mean']:.3f}"
        groups = f"{row['groups_kept']}/{row['groups_kept'] + sum(row['dropped'].values())} groups kept"
        state = f"reward {reward}, {groups}, {row['images_per_s']:.1f} images/s{_missing(row)}"
        self._bar.update(self._task, completed=row["step"], state=state)
        if not self.console.is_terminal:
            self.say(f"step {row['step']}/{self._total}: {state}")

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
