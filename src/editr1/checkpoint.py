"""Folders that are whole or not there, and the moments in which a run may not be stopped.

A checkpoint is written beside its place under a hidden name, brought to the disk, and renamed: a full disk or a kill at
any moment leaves the previous one as it was. `state.json` lists the size of every file, so that a copy that was cut
short is seen. Tensors are safetensors, the rest is JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from editr1.errors import UserError

STATE = "state.json"
FORMAT = 1


def save(root: Path, step: int, state: Mapping[str, Any], write: Callable[[Path], None], keep: int) -> Path:
    """Write `root`/step_<step> and remove all but the newest `keep` checkpoints. One that is there already stays.

    Args:
        root: folder of the checkpoints.
        step: steps done.
        state: what goes into state.json beside "step" and the list of files.
        write: puts the files into the folder it is given.
        keep: checkpoints that stay, at least 1.

    Raises:
        UserError: the disk does not take it; older checkpoints are as they were.
    """
    final = root / f"step_{step:06d}"
    if is_complete(final):
        return final
    part = root / f".{final.name}.part"
    try:
        _discard(*root.glob(".step_*.part"), final)
        part.mkdir(parents=True)
        write(part)
        _seal(part, {"format": FORMAT, "step": step, **state})
        part.replace(final)
        _sync(root)
        for old in complete(root)[:-keep]:
            _discard(old.replace(root / f".{old.name}.part"))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint {final}: {error}; older ones are whole: make room, run again"
        ) from error
    return final


def latest(root: Path) -> Path | None:
    """The newest checkpoint that is whole, or None."""
    found = complete(root)
    return found[-1] if found else None


def complete(root: Path) -> list[Path]:
    """All checkpoints that are whole, oldest first."""
    return sorted(
        (path for path in root.glob("step_*") if is_complete(path)), key=lambda path: read_state(path)["step"]
    )


def is_complete(folder: Path) -> bool:
    """Whether state.json is there and every file that it lists has the size it should have."""
    try:
        files = read_state(folder)["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def read_state(folder: Path) -> dict[str, Any]:
    """The content of state.json."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made.

    Raises:
        UserError: the disk does not take it.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        _sync(part)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # its folder may be what is wrong
            part.unlink()
        raise UserError(f"cannot write {path}: {error}") from error


def append_lines(path: Path, lines: Iterable[Any]) -> None:
    """Append JSON lines and see them on the disk.

    Raises:
        UserError: the disk does not take them.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; make room, and run the same command again") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """The state of an optimiser as "<quantity>.<parameter>": tensor; its settings are the config's business.

    Args:
        optimizer: one whose state is tensors, such as AdamW.
        names: of its parameters, in their order.
    """
    state = optimizer.state_dict()["state"]
    return {f"{key}.{names[i]}": value for i, held in state.items() for key, value in held.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors`: give an optimiser of the same parameters its state back."""
    held: dict[int, dict[str, Tensor]] = {}
    index = {name: i for i, name in enumerate(names)}
    for key, value in tensors.items():
        quantity, _, name = key.partition(".")
        held.setdefault(index[name], {})[quantity] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})


class Interrupts:
    """Inside, Ctrl-C and SIGTERM raise KeyboardInterrupt; within a `held()` block they wait for its end."""

    def __init__(self) -> None:
        self._holding = False
        self._waiting = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that is done to its end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._holding:
            raise KeyboardInterrupt
        self._waiting = True


def _discard(*folders: Path) -> None:
    """Remove what a killed run left."""
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)


def _seal(folder: Path, state: Mapping[str, Any]) -> None:
    """Bring every file to the disk, then list them in state.json."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / STATE).write_text(json.dumps({**state, "files": sizes}, indent=1), encoding="utf-8")
    for path in [*files, folder / STATE, *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
