"""Where the row of a step goes: metrics.jsonl, the trackers, the terminal; and the pictures of samples."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from editr1.data.pictures import png
from editr1.files import JsonLines, write_file
from editr1.terminal import is_quiet, open_console
from editr1.training.alarms import Alarm
from editr1.training.grid import Strip, places, sample_grid
from editr1.training.metrics import restore_metrics
from editr1.training.run_files import METRICS, SAMPLES
from editr1.training.step_row import StepRow, groups_made
from editr1.training.trackers import Apart, close_all

QUIET = 30.0  # seconds between two lines within a step, where there is no terminal
BUSY = ("rollout", "read", "judge", "train")  # parts in which a rank works or waits for its judge, not for others
LONG_STEP = 600.0  # seconds of a step of which a run warns


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


def slowest(clocks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The seconds of each part on the rank that took longest for it; `clocks` are those of all ranks."""
    parts = dict.fromkeys(part for clock in clocks for part in clock)
    return {part: max(clock.get(part, 0.0) for clock in clocks) for part in parts}


def imbalance(clocks: Sequence[Mapping[str, float]]) -> float:
    """The share of all ranks' time that goes by in waiting for the busiest one: 0 if all are equally busy, below 1."""
    busy = [sum(clock.get(part, 0.0) for part in BUSY) for clock in clocks]
    return 1 - sum(busy) / (len(busy) * max(busy)) if max(busy) > 0 else 0.0


def by_rank(clocks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The seconds of each part on each rank, by names such as "0/rollout"; `clocks` are those of all ranks."""
    return {
        f"{rank}/{part}": spent for rank, clock in enumerate(clocks) for part, spent in clock.items() if part != "total"
    }


class RunLog:
    """Writes rows to `out`: metrics.jsonl, one line a step, on the disk when `write` returns; trackers get them too.

    Args:
        out: folder of the run.
        step: steps that the run has done; rows past it (of a run that was killed after its last checkpoint) are cut.

    Attributes:
        rows: all rows of the run.
        trackers: those of the run; whoever opens the log adds them.
    """

    def __init__(self, out: Path, step: int) -> None:
        self.path = out / METRICS
        self.rows = restore_metrics(self.path, step)
        self._lines = JsonLines(self.path, "rows of steps", "take another folder", load=dict[str, Any], allow_nan=True)
        self._lines.replace(self.rows)
        self._samples = out / SAMPLES
        self.trackers: list[Apart] = []

    def write(self, row: StepRow) -> None:
        """Append one row.

        Raises:
            UserError: the disk does not take it.
        """
        self._lines.append([row])
        self.rows.append(row)
        for tracker in self.trackers:
            tracker.row(row)

    def picture(self, step: int, strips: Sequence[Strip]) -> None:
        """Write the picture of the samples of a step, and beside it what is where in it."""
        image, name = sample_grid(strips), f"step_{step:06d}"
        write_file(self._samples / f"{name}.png", png(image))
        write_file(self._samples / f"{name}.json", json.dumps({"step": step, **places(strips)}, indent=1).encode())
        for tracker in self.trackers:
            tracker.picture(step, image)

    def close(self) -> None:
        """Wait for the trackers."""
        close_all(self.trackers)


def _missing(row: StepRow) -> str:
    """The rewards that edits lack, each with the number of these edits and the commonest reason; "" without any."""
    counts = {"reward": row.get("unscored", 0), **row.get("parts_unscored", {})}
    reasons = {"reward": row.get("reasons", []), **row.get("parts_reasons", {})}
    words = [
        f"no {name} for {count} edits" + (f" ({reasons[name][0]})" if reasons.get(name) else "")
        for name, count in counts.items()
        if count
    ]
    return "".join(f", {word}" for word in words)


def reward_words(row: StepRow) -> str:
    """The mean reward; the loss of a step whose edits nobody judged."""
    if row["reward_mean"] is not None:
        return f"reward {row['reward_mean']:.3f}"
    return "reward none" if row.get("unscored") or row.get("loss") is None else f"loss {row['loss']:.4g}"


def duration(seconds: float) -> str:
    """Seconds as "5 min 20 s" or "3 h 10 min"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


class StepProgress:
    """What a run is doing: in a terminal a bar, elsewhere one line a step, and one now and then within long steps.

    Args:
        done: Steps that are done.
        total: Steps in all.
        edits: Edits of a step, as far as it is known.
        clock: Seconds that pass.
        quiet: Whether nothing is shown, as on all ranks but the main one.
    """

    def __init__(
        self,
        done: int,
        total: int,
        edits: int = 0,
        clock: Callable[[], float] = time.monotonic,
        quiet: bool = False,
    ) -> None:
        self.console = open_console(stderr=True, speaks=not quiet)
        self._warnings = self.console if not is_quiet() else open_console(stderr=True, speaks=not quiet, always=True)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[state]}"))
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal
        )
        self._task = self._bar.add_task("", completed=done, total=total, state="")
        self._done, self._total, self.edits, self._clock = done, total, edits, clock
        self._told, self._begun, self._estimated, self._measured = set[str](), False, False, False
        self._spoken = self._waited = self._started = clock()

    def __enter__(self) -> StepProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def begin(self, lines: Sequence[str]) -> None:
        """Say what a session starts with, once."""
        self._started = self._clock()
        if not self._begun:
            for each in lines:
                self.say(each)
        self._begun = True

    def collects(self, made: int, judged: int) -> None:
        """Edits of the step that are made and judged so far."""
        self._waited = self._clock()
        self._warn_slow(made, self._waited - self._started)
        self._inside(f"{made}/{self.edits} edits made, {judged} judged")

    def waits(self, judged: int) -> None:
        """All edits are made; the judge is busy with the rest."""
        waited = self._clock() - self._waited
        self._inside(f"waiting for the judge {waited:.0f} s, {judged}/{self.edits} edits judged")

    def trains(self, done: int, kept: int) -> None:
        """Groups that the gradient holds so far, of those that are trained on."""
        self._inside(f"{done}/{kept} groups trained")

    def show(self, row: StepRow, alarms: Sequence[Alarm] = ()) -> None:
        """Show the row of a step that is done, and the alarms that have not been told yet."""
        reward = reward_words(row)
        groups = f"{row['groups_kept']}/{groups_made(row)} groups kept"
        groups += f", {row['banned']} items solved" if row.get("banned") else ""
        state = f"{reward}, {groups}, {row['images_per_s']:.1f} images/s{_missing(row)}"
        self._done = row["step"]
        self._bar.update(self._task, completed=row["step"], state=state)
        if not self.console.is_terminal:
            self.say(f"step {row['step']}/{self._total}: {state}")
        self._estimate(row)
        for alarm in alarms:
            if alarm.name not in self._told:
                self._told.add(alarm.name)
                self.warn(f"ALARM at step {row['step']}, {alarm.name}: {alarm.text}")

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self._spoken = self._clock()
        self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that a quiet command tells too."""
        self._spoken = self._clock()
        self._warnings.print(text, markup=False, soft_wrap=True)

    def _inside(self, state: str) -> None:
        """Show what goes on in a step; without a terminal, once in `QUIET` seconds."""
        self._bar.update(self._task, state=state)
        if not self.console.is_terminal and self._clock() - self._spoken >= QUIET:
            self.say(f"step {self._done + 1}/{self._total}: {state}")

    def _warn_slow(self, made: int, seconds: float) -> None:
        """Once, by the first edits of a session: how long its steps will be, if they are long."""
        whole = seconds / max(made, 1) * self.edits
        if not self._measured and made < self.edits and whole > LONG_STEP:
            self.warn(
                f"warning: the first {made} edits took {duration(seconds)}, so the {self.edits} of a step take about "
                f"{duration(whole)}, and training comes on top; smaller rollout.groups_per_step, rollout.group_size or "
                "editor.pixels make steps shorter"
            )
        self._measured = True

    def _estimate(self, row: StepRow) -> None:
        """After the first step of a session, the time that the others will take."""
        left, seconds = self._total - row["step"], sum(row.get("seconds", {}).values())
        if not self._estimated and left and seconds:
            self.say(f"This step took {seconds:.0f} s; {left} more take about {duration(left * seconds)}.")
        self._estimated = True
