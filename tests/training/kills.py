"""Disturb a run at random moments, again and again, and continue it, as a user whose machine is taken away would."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.ranks import launcher as torchrun_launcher
from tests.ranks import run_ranks

STAGES = ("start", "rollout", "judge", "exchange", "train", "row", "save")
STAGED = str(Path(__file__).with_name("staged.py"))
SAVE_EVERY = 2
ADVANCE = 3  # steps that a session makes at most until it has ended, but for moments that come late
TINY = (
    "toy",
    "data.size=16",
    "rollout.steps=2",
    "rollout.group_size=3",
    "rollout.groups_per_step=2",
    "algorithm.filter=off",
    f"save_every={SAVE_EVERY}",
)
PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Moment:
    """A moment of a session: `seconds` after the beginning of the first `stage` that follows `rows` rows."""

    stage: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class Stages:
    """The stages that one process has told, with the time when each began."""

    path: Path

    @property
    def pid(self) -> int:
        return int(self.path.suffix[1:])

    def read(self) -> list[tuple[str, float]]:
        *lines, _ = self.path.read_text().split("\n")
        return [(stage, float(at)) for stage, at in (line.split() for line in lines)]

    def has_reached(self, moment: Moment) -> bool:
        names = [name for name, _ in self.read()]
        if moment.stage == "start":
            return "start" in names
        for _ in range(moment.rows):
            if "row" not in names:
                return False
            names = names[names.index("row") + 1 :]
        return moment.stage in names


def draw(rng: random.Random, number: int, seconds: Mapping[str, float]) -> list[Moment]:
    """Moments of as many sessions, each within a stage that takes `seconds`; sessions make at most `ADVANCE` steps."""
    stages = [rng.choice([name for name in STAGES if name in seconds]) for _ in range(number)]
    lengths = {**seconds, "start": seconds["start"] / 2}  # so that it is not over, where another process is slower
    return [Moment(stage, rng.randrange(3), rng.random() * lengths[stage]) for stage in stages]


def seconds_of_stages(stages: Stages) -> dict[str, float]:
    """The longest time that each stage takes; that of "start" is all before the first rollout."""
    seconds: dict[str, float] = {}
    for (name, begin), (_, end) in pairwise(stages.read()):
        seconds[name] = max(seconds.get(name, 0.0), end - begin)
    return seconds


def command(folder: Path, out: Path, steps: int, launcher: Sequence[str], settings: Sequence[str] = ()) -> list[str]:
    """A run in `out` that tells its stages in `folder`; `launcher` is python, or torchrun with its options."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*launcher, STAGED, str(folder), "train", *TINY, *settings, f"steps={steps}", f"out={out}"]


class Launch:
    """A process whose words are read as they come, since a full pipe would stop it; `end` waits for it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> str:
        """Wait until it has ended; the end of what it said."""
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return "".join(self._lines)[-20_000:]

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait for something; whether it came before the process ended."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing happened in {PATIENCE:.0f} s; it said: {''.join(self._lines)[-5000:]}")
            time.sleep(0.001)
        return True

    def _read(self) -> None:
        assert self.process.stderr is not None
        self._lines.extend(self.process.stderr)


def straight(out: Path, steps: int, ranks: int = 1, settings: Sequence[str] = ()) -> dict[str, float]:
    """An undisturbed run; the seconds of the stages of rank 0."""
    folder = out.with_name(f"{out.name}.stages")
    done = run_ranks(command(folder, out, steps, launcher(ranks), settings))
    assert done.returncode == 0, done.stderr
    return seconds_of_stages(Stages(next(folder.glob("0.*"))))


Fault = Callable[[int, int], None]
"""What befalls a run: a function of the process that was started (python or torchrun), and of the process of a rank."""


def to_rank(number: signal.Signals) -> Fault:
    """A signal to a rank."""
    return lambda started, rank: send(rank, number)


def to_launcher(number: signal.Signals) -> Fault:
    """A signal to torchrun, as from Ctrl-C and from Slurm."""
    return lambda started, rank: send(started, number)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def full_disk(rng: random.Random) -> Fault:
    """No file of a rank may grow beyond a random size: what is written beyond it fails, in the middle of a file too."""

    def fill(started: int, rank: int) -> None:
        limit = int(10 ** rng.uniform(0, 6.4))  # less than the smallest file of weights
        with suppress(ProcessLookupError):
            resource.prlimit(rank, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return fill


@dataclass
class Disturbance:
    """Faults that befall a run, one per session.

    Attributes:
        out: Folder of the run.
        steps: Steps of the run, enough for all moments.
        moments: When, by the stages of rank 0.
        fault: What.
        rng: Chooses the rank.
        ranks: Number of ranks.
        settings: Further settings of the run.
        hits: How often each stage of a disturbed rank was hit.
    """

    out: Path
    steps: int
    moments: Sequence[Moment]
    fault: Fault
    rng: random.Random
    ranks: int = 1
    settings: Sequence[str] = ()
    hits: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._stages = self.out.with_name(f"{self.out.name}.stages")
        self._sessions = set[Path]()

    def by_hand(self, ends: Collection[int]) -> None:
        """Start the run again after every fault, which must end it by one of the exit codes `ends`; then finish it."""
        words = command(self._stages, self.out, self.steps, launcher(self.ranks), self.settings)
        for moment in self.moments:
            with started(words) as launch:
                self._disturb(launch, moment)
                said = launch.end()
                assert launch.process.returncode in ends, (launch.process.returncode, said)
        done = run_ranks(words)
        assert done.returncode == 0, done.stderr

    def under_torchrun(self) -> None:
        """Let torchrun restart the ranks after every fault, until the run is finished."""
        restarting = launcher(self.ranks, len(self.moments))
        words = command(self._stages, self.out, self.steps, restarting, self.settings)
        with started(words) as launch:
            for moment in self.moments:
                self._disturb(launch, moment)
            said = launch.end()
            assert launch.process.returncode == 0, said

    def _disturb(self, launch: Launch, moment: Moment) -> None:
        """Wait for a session and its moment, and let the fault come."""
        assert launch.wait(lambda: len(self._begun()) == self.ranks), launch.end()
        session = [Stages(path) for path in self._begun()]
        self._sessions |= {*self._begun()}
        assert launch.wait(lambda: session[0].has_reached(moment)), f"it was over before {moment}: {launch.end()}"
        time.sleep(moment.seconds)
        victim = self.rng.randrange(self.ranks)
        self.fault(launch.process.pid, session[victim].pid)
        self.hits[session[victim].read()[-1][0] + (f" of rank {victim}" if self.ranks > 1 else "")] += 1

    def _begun(self) -> list[Path]:
        """The files of the ranks of a new session that have told a stage, by rank."""
        new = {*self._stages.iterdir()} - self._sessions
        return sorted(path for path in new if path.stat().st_size)


def launcher(number: int, restarts: int = 0) -> list[str]:
    """What starts one process, or as many ranks on this machine."""
    return [sys.executable] if number == 1 else torchrun_launcher(number, restarts)


@contextmanager
def started(words: Sequence[str]) -> Iterator[Launch]:
    """A process that is gone afterwards, with its ranks."""
    launch = Launch(words)
    try:
        yield launch
    finally:
        if launch.process.poll() is None:
            launch.process.terminate()
            launch.end()
