"""What `editr1 check` does, and the same before a training run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from editr1.config.rewards import JudgeConfig
from editr1.config.settings import Config, EditorConfig
from editr1.data.long import LongDataset
from editr1.data.samples import StoredDataset
from editr1.editors.check import check_editor
from editr1.errors import UserError, tell
from editr1.evaluation.progress import progress
from editr1.judges.check import check_judge
from editr1.terminal import is_quiet, open_console
from editr1.training.data_check import PictureCheck, describe_sizes, headers_of
from editr1.training.data_record import DataRecord
from editr1.training.datasets import CHECKED
from editr1.training.preflight import (
    Findings,
    check_run,
    check_writable,
    find_overlap,
    look_at_pictures,
    sample_requests,
)

SECONDS = 10.0
"""Longest time for which looking at pictures holds up a run."""
AT_ONCE, PAUSE = 100, 0.02
"""Lines that are looked at beside the training without a pause, and the pause in seconds: a tenth of a core."""
THREAD = "editr1-pictures"
SLOW = 5.0
"""Seconds after which the part that is being checked is named."""
LINES = 20
"""Faults that are shown; the others are counted."""


def run_check(config: Config) -> str:
    """Check all of a run, every picture included; what was checked, one line for each part.

    Raises:
        UserError: Something is wrong; one line for each fault.
    """
    findings = find(config)
    for name, pictures in findings.pictures.items():
        _look([pictures], lambda: False)
        findings.faults += pictures.faults
        findings.facts[f"{name} pictures"] = describe_sizes(pictures.sizes)
    refuse_findings(config, findings)
    width = max(map(len, findings.facts))
    return "\n".join(f"{name:{width}}  {fact}" for name, fact in findings.facts.items())


def check_evaluation(dataset: StoredDataset, editor: EditorConfig, judge: JudgeConfig, out: Path) -> None:
    """Refuse what an evaluation of a user's own items cannot start with: folder, editor, judge, pictures, texts."""
    findings, pictures = Findings(), PictureCheck(dataset.pictures, headers_of(dataset.folder))
    with findings.part("--out"):
        check_writable(out, "--out")
    with findings.part("editor"):
        check_editor(editor)
    with findings.part("judge") as faults:
        faults += check_judge(judge, sample_requests(dataset))
    _look([pictures], lambda: False)
    refuse(findings.faults + pictures.faults)
    from editr1.training.model_check import long_instructions  # imports diffusers and transformers

    refuse(long_instructions(dataset, editor))


@contextmanager
def checked(config: Config, clock: Callable[[], float] = time.monotonic) -> Iterator[DataRecord | None]:
    """Check a run before the block; if there are many lines or pictures, the rest of them beside it.

    Yields:
        The record of its data, not written yet, if that is a folder.

    Raises:
        UserError: Something is wrong before the block. A line or picture that is seen later is a warning.
    """
    findings = find(config, CHECKED)
    checks, end = [*findings.pictures.values()], clock() + SECONDS
    complete = _look(checks, lambda: clock() >= end)
    findings.faults += [fault for pictures in checks for fault in pictures.faults]
    refuse_findings(config, findings)
    long = [dataset for dataset in findings.data.values() if isinstance(dataset, LongDataset)]
    if complete and not long:
        yield findings.record
        return
    if not complete:
        seen, total = (sum(counts) for counts in zip(*((p.seen, p.total) for p in checks), strict=True))
        warn(f"looked at {seen} of {total} pictures in {SECONDS:.0f} s; the others are looked at beside the training")
    for dataset in long:
        tell(f"{dataset.file}: checked {len(dataset.sample)} of {len(dataset)} lines, the others beside the training")
    stop = threading.Event()
    rest = threading.Thread(target=_look_beside, args=(long, checks, stop, findings.record), name=THREAD, daemon=True)
    rest.start()
    try:
        yield findings.record
    finally:
        stop.set()
        rest.join()


def _look_beside(
    long: Sequence[LongDataset], checks: Sequence[PictureCheck], stop: threading.Event, record: DataRecord | None
) -> None:
    """Look at lines, then at pictures, until it is stopped, then keep what is known about the pictures."""
    for dataset in long:
        look_at_lines(dataset, stop)
    look_at_pictures(checks, stop.is_set, warn)
    try:
        if record is not None:
            record.keep()
    except UserError as error:
        warn(str(error))


def look_at_lines(dataset: LongDataset, stop: threading.Event) -> None:
    """Tell what is wrong with lines, with so many pauses that training hardly waits for it."""
    found = 0
    try:
        for number, fault in enumerate(dataset.faults()):
            if number % AT_ONCE == 0 and stop.wait(PAUSE):
                return
            found += fault is not None
            warn(fault if found <= LINES else None)
    except UserError as error:  # the file has changed
        warn(str(error))
    if found > LINES:
        warn(f"{dataset.file}: and {found - LINES} more faults; see editr1 data check")


def find(config: Config, most: int | None = None) -> Findings:
    """What `check_run` finds; says meanwhile which part takes long, as a busy server does."""
    findings, done = Findings(), threading.Event()

    def watch() -> None:
        told = ""
        while not done.wait(SLOW):
            if findings.now != told and not is_quiet():
                told = findings.now
                tell(f"still checking {told} ...")

    threading.Thread(target=watch, daemon=True).start()
    try:
        check_run(config, findings, most)
    finally:
        done.set()
    return findings


def refuse_findings(config: Config, findings: Findings) -> None:
    """Tell warnings and refuse faults; only if there are none, look for those that libraries can tell."""
    find_overlap(findings)
    for warning in findings.warnings:
        warn(warning)
    refuse(findings.faults)
    from editr1.training.model_check import check_models  # imports diffusers and transformers

    check_models(config, findings)
    refuse(findings.faults)


def warn(fault: str | None) -> None:
    """Tell a fault as a warning, if it is one."""
    if fault is not None:
        tell(f"warning: {fault}")


def refuse(faults: Sequence[str]) -> None:
    """Raise a UserError with one line for each fault, if there are any."""
    more = [f"and {len(faults) - LINES} more faults"] if len(faults) > LINES else []
    if faults:
        raise UserError(*faults[:LINES], *more)


def _look(checks: Sequence[PictureCheck], enough: Callable[[], bool]) -> bool:
    """Look at pictures with a progress bar, until it is enough; whether none are left."""
    console, total = open_console(stderr=True), sum(pictures.total for pictures in checks)
    with progress(console, "pictures", total if console.is_terminal else 0) as advance:
        return look_at_pictures(checks, enough, lambda fault: advance())
