"""Where the rows and pictures of a run go besides its own files: TensorBoard, Weights & Biases, trackio.

Each tracker works in a thread of its own, which it is opened in too: one that fails or is slow warns once and is left
out, and the run neither ends nor waits for it. Nothing goes over a network unless the user's environment says so.

W&B and trackio know a run by an id that is kept in its folder, beside the last step that they have: a run that goes on
goes on there, steps that are made again are not told again, and rows that a killed process did not hand on are made up.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any, Protocol

import numpy as np
from PIL.Image import Image

from editr1.config.settings import Config, TrackerName
from editr1.errors import first_line, read_json
from editr1.files import write_file
from editr1.training.run_files import BOARD, TRACKERS
from editr1.training.step_row import StepRow

_log = logging.getLogger(__name__)
PROJECT = "editr1"
BEHIND = 1000  # rows and pictures that a tracker may be behind, more than are made up at once
CLOSING = 60.0  # seconds for what a tracker still has to write when a run ends
SECRET = re.compile(r"(?<=//)[^/@\s\"]+(?=@)|(?<=key=|ken=|ret=|ord=)[^&\s\"]+")
"""In addresses: user and password, and the values of key=, token=, secret= and password=."""


class Tracker(Protocol):
    """Takes the numbers and pictures of a run, in the order of the steps."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, image: Image) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """RUN/tb; forgets what is past the step at which it is opened."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, which `editr1 --help` need not wait for

        self._writer = SummaryWriter(str(out / BOARD), purge_step=step + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, step: int, image: Image) -> None:
        self._writer.add_image("samples", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


@dataclass
class Mark:
    """What a tracker has of a run: its id there, and the last steps whose numbers and picture it has."""

    id: str
    numbers: int = 0
    picture: int = 0


def read_mark(file: Path, step: int) -> Mark:
    """The mark in a file; a new one without a file, or for a run that begins anew."""
    if step and file.exists():
        return Mark(**read_json(file))
    return Mark(uuid.uuid4().hex[:8])


class Marked:
    """A tracker that takes each step once, however often the run was stopped; `file` keeps its mark."""

    def __init__(self, tracker: Tracker, mark: Mark, file: Path) -> None:
        self._tracker, self._mark, self._file = tracker, mark, file
        self._keep()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._mark.numbers:
            self._tracker.numbers(step, values)
            self._mark.numbers = step
            self._keep()

    def picture(self, step: int, image: Image) -> None:
        if step > self._mark.picture:
            self._tracker.picture(step, image)
            self._mark.picture = step
            self._keep()

    def close(self) -> None:
        self._tracker.close()

    def _keep(self) -> None:
        write_file(self._file, json.dumps(asdict(self._mark)).encode())


class Wandb:
    """Weights & Biases: offline in RUN/wandb, or as WANDB_MODE, WANDB_PROJECT, WANDB_NAME and WANDB_DIR say."""

    def __init__(self, out: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self._picture = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", out.resolve().name),
            id=run_id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(out)),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            config=dict(settings),
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                init_timeout=CLOSING / 2,  # its own would hold the process after the run
                login_timeout=CLOSING / 2,
                finish_timeout=CLOSING / 2,
            ),
        )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: Image) -> None:
        self._run.log({"samples": self._picture(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """trackio's database on this machine, or where TRACKIO_DIR, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""

    def __init__(self, out: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        import trackio

        self._picture = trackio.Image
        with redirect_stdout(StringIO()):  # it greets where results of commands stand
            self._run = trackio.init(
                PROJECT,
                name=f"{out.resolve().name}-{run_id}",
                resume="allow",
                config=dict(settings),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: Image) -> None:
        self._run.log({"samples": self._picture(image)}, step=step)

    def close(self) -> None:
        with redirect_stdout(StringIO()):
            self._run.finish()


class Apart:
    """A tracker in a thread of its own.

    Args:
        name: The tracker's.
        open_tracker: Makes it, in that thread.
    """

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]) -> None:
        self.name, self._lost = name, False
        self._tasks: Queue[Callable[[Tracker], None] | None] = Queue(BEHIND)
        self._thread = Thread(target=self._work, args=(open_tracker,), name=name, daemon=True)
        self._thread.start()

    def row(self, row: StepRow) -> None:
        """Hand on the numbers of a row."""
        step, values = row["step"], dict(flat(row))
        self._put(lambda tracker: tracker.numbers(step, values))

    def picture(self, step: int, image: Image) -> None:
        """Hand on the picture of the samples of a step."""
        self._put(lambda tracker: tracker.picture(step, image))

    def close(self, until: float) -> None:
        """Wait for what is still to be written, but not past a time of `time.monotonic`."""
        self._put(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._lose("it did not end in time")

    def _put(self, task: Callable[[Tracker], None] | None) -> None:
        try:
            if not self._lost:
                self._tasks.put_nowait(task)
        except Full:
            self._lose(f"it is {BEHIND} rows behind")

    def _work(self, open_tracker: Callable[[], Tracker]) -> None:
        try:
            tracker = open_tracker()
            while not self._lost and (task := self._tasks.get()) is not None:
                task(tracker)
            tracker.close()
        except Exception as error:  # noqa: BLE001  # of a foreign library, which must not end the run
            self._lose(first_line(error))

    def _lose(self, why: str) -> None:
        if not self._lost:
            _log.warning("%s gets no more of this run (%s); metrics.jsonl has all rows", self.name, why)
        self._lost = True


def close_all(trackers: Sequence[Apart]) -> None:
    """End all trackers; together they have `CLOSING` seconds."""
    until = time.monotonic() + CLOSING
    for tracker in trackers:
        tracker.close(until)


def open_trackers(config: Config, out: Path, rows: Sequence[StepRow], step: int) -> list[Apart]:
    """The trackers that a run which has done `step` steps is told to use; they are given `rows` that they lack."""
    settings = json.loads(SECRET.sub("***", json.dumps(config.model_dump(mode="json"))))
    trackers = []
    for name in dict.fromkeys(config.trackers):
        if find_spec(name) is not None:
            trackers.append(Apart(name, partial(_open, name, out, step, settings)))
        else:  # `preflight.check_trackers` refuses the other two
            _log.warning("%s is not written; for TensorBoard's curves, pip install 'editr1[tensorboard]'", out / BOARD)
    for tracker in trackers:
        for row in rows[-BEHIND // 2 :] if tracker.name != "tensorboard" else ():
            tracker.row(row)
    return trackers


def _open(name: TrackerName, out: Path, step: int, settings: Mapping[str, Any]) -> Tracker:
    if name == "tensorboard":
        return TensorBoard(out, step)
    file = out / TRACKERS / f"{name}.json"
    mark = read_mark(file, step)
    kind = Wandb if name == "wandb" else Trackio
    return Marked(kind(out, mark.id, settings), mark, file)


def flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """("reward_by_task/add", 0.5), ... for every number of a row that is finite, but for its step."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value) and prefix + name != "step":
            yield prefix + name, value
